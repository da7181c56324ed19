"""Why a private run does not learn: what its history shows, in the order of a checklist.

A cause explains what stands below it in the list: where nothing arrives, or where the noise is
longer than the signal, no learning rate helps. So the rates are judged only when neither is found.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fldp._checks import shown
from fldp._text import fill
from fldp.simulation import causes
from fldp.simulation import symptoms as limits
from fldp.simulation.causes import Reason
from fldp.simulation.history import History
from fldp.simulation.symptoms import Symptoms


@dataclass(frozen=True)
class RunDiagnosis:
    """What a history shows of why its run does not learn.

    Guarantee: where `reads_private` is False, it is a function of what the run's statement covers,
    and of the validation records.

    Parameters
    ----------
    findings : tuple of Reason
        The likely ones first, each group in the order of the checklist.
    looked : tuple of str
        What was looked at.
    missing : tuple of str
        What was not, and what it would take.
    reads_private : bool
        Whether figures that no ε covers were read: then neither it nor the absence of a finding
        may be published.

    Examples
    --------
    >>> found = RunDiagnosis((), looked=("ε",), missing=(), reads_private=False)
    >>> found.findings
    ()
    """

    findings: tuple[Reason, ...]
    looked: tuple[str, ...]
    missing: tuple[str, ...]
    reads_private: bool

    def __str__(self) -> str:
        parts = [str(finding) for finding in self.findings]
        looked = "; ".join(self.looked) or "nothing"
        lines = [f"{'Looked at' if parts else 'Nothing found among'}: {looked}."]
        lines += [f"Not looked at: {what}." for what in self.missing]
        if self.reads_private:
            lines.append(
                "Private: it reads figures that no ε covers. Keep it where the updates are kept; "
                "diagnose(history, private=False) reads released figures alone."
            )
        else:
            lines.append("Read from released figures alone.")
        return "\n".join([*parts, *map(fill, lines)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; private where `reads_private` says so."""
        return asdict(self)


def _unseen(run: Symptoms, other: Symptoms | None) -> Iterator[str]:
    """What the history does not hold."""
    if run.history.plan is None:
        yield "signal to noise (the run has no plan)"
    if not run.d:
        yield "model size (the history holds no model)"
    if not len(run.loss):
        yield (
            "learning rates, rounds (the history holds no validation curve that may be read: give "
            "train validation=, records that are public)"
        )
    elif not run.has_curve:
        yield (
            f"learning rates, rounds (the loss has fewer than {limits.FEWEST_ROUNDS} points, or is "
            "not positive)"
        )
    if not len(run.clipped):
        yield (
            "clipped share, malformed contributions (private: only the run's own history has them)"
        )
    if other is None:
        yield "what the noise costs (give without_noise=, the same run with plan=None)"
    yield "norms of updates, learning rates as they were set (no history holds them)"


def diagnose(
    history: History, *, without_noise: History | None = None, private: bool = True
) -> RunDiagnosis:
    """Why a run does not learn: the likely causes first, each with what to change.

    It reads the plan, the released model and the validation curve, which the run's statement
    covers; and, unless told not to, what the server saw in the clear, which nothing covers. It
    says what it could not look at. That it finds nothing does not say that all is well.

    Parameters
    ----------
    history : History
        Of the run, as `train` returned it: a copy or a pickle has no private figures.
    without_noise : History, optional
        Of the same run with `plan=None` and the same clip. No ε covers anything of it.
    private : bool
        False reads released figures alone, so that the diagnosis may be published.

    Returns
    -------
    RunDiagnosis

    Raises
    ------
    ValueError
        For what is no history; for `private=False` with a run that no ε covers.

    References
    ----------
    That the clipped share and the signal to noise are worth a look, and what may be published of
    them: Ponomareva et al. 2023.

    Examples
    --------
    >>> import fldp, torch
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=20, seed=0)
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=5, clients=20)
    >>> history = fldp.train(torch.nn.Linear(64, 10), people, plan, validation=(x, y))
    >>> fldp.diagnose(history, private=False).findings[0].cause
    'too few clients for this noise'
    """
    if not isinstance(history, History):
        raise ValueError(f"history is {shown(history)}: give what fldp.train returned")
    if not isinstance(without_noise, History | None):
        raise ValueError(
            f"without_noise is {shown(without_noise)}: give a history, or leave it out"
        )
    plan = history.plan
    if not private and (plan is None or without_noise is not None):
        raise ValueError(
            "private is False, but no ε covers a run without a plan: leave private out, and keep "
            "the diagnosis to yourself, or give a run with a plan alone"
        )
    run = Symptoms(history, private)
    other = None if without_noise is None else Symptoms(without_noise, True)
    looked, found = _examined(run, other)
    found.sort(key=lambda finding: not finding.is_likely)
    return RunDiagnosis(
        tuple(found),
        tuple(looked),
        tuple(_unseen(run, other)),
        run.reads_private or other is not None,
    )


def _examined(run: Symptoms, other: Symptoms | None) -> tuple[list[str], list[Reason]]:
    """What was looked at and what was found, in the order of the checklist."""
    plan = run.history.plan
    looked: list[str] = []
    found: list[Reason] = []
    if plan is not None and run.d:
        looked += ["signal to noise", "model size", "population"]
        found += causes.faint_signal(run, plan)
    if len(run.clipped):
        looked.append("lost contributions")
    found += causes.lost(run)
    if other is not None:
        looked.append("the run without noise")
        found += causes.not_the_noise(other)
    if len(run.clipped):
        looked.append("clipped share")
        found += causes.clip_too_large(run)
    if len(run.loss):
        looked += ["learning rates", "rounds"] if run.has_curve else []
        # A likely cause so far explains the curve.
        if not any(finding.is_likely for finding in found):
            found += (*causes.wrong_rates(run), *causes.wrong_rounds(run))
    if other is not None:
        found += causes.price_of_noise(run, other)
    return looked, found
