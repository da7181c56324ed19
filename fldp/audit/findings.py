"""What an audit found, in words that are no stronger than its statistics; a series of audits.

A lower bound is rounded down when it is printed, a claim up. Every result names what it presumes.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from fldp._checks import between, real, whole
from fldp._text import down, up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fldp.plan import PrivacyPlan

Options = ParamSpec("Options")

_RUNS = "the runs are independent, and a release knows the world it ran in from the canary alone"
_COINS = (
    "each canary took part by its own fair coin, and nothing but the canary's presence depends on "
    "that coin"
)
_GAUSSIAN = (
    "the noise is Gaussian: the trade-off curve is that of μ-Gaussian DP (a full-participation "
    "Gaussian sum's is; a subsampled or broken mechanism's may not be)"
)
_FAMILY = (
    "the trade-off curve is the plan's own at some noise multiplier; that the plan's curve itself "
    "is refuted presumes nothing of this"
)
# What each method needs to be right. `benchmarks.audits` measures each; a test compares the tables.
PRESUMPTIONS = {
    "clopper-pearson": _RUNS,
    "gdp": f"{_RUNS}, and {_GAUSSIAN}",
    "one-run": _COINS,
    "one-run-gdp": f"{_COINS}, and {_GAUSSIAN}",
    "one-run-plan": f"{_COINS}, and {_FAMILY}",
    "betting-gdp": f"{_COINS}, the runs are independent, and {_GAUSSIAN}",
    "one-shot": (
        "the cosines of present and absent canaries are Gaussian; it is an estimate, and with few "
        "canaries it reads far above the truth"
    ),
}
_IF_GAUSSIAN = ("gdp", "one-run-gdp", "betting-gdp")
# How many digits are printed.
_DIGITS = 3
# And the most that are, where a bound and a claim nearly meet.
_MOST_DIGITS = 15
# Digits of a confidence in percent.
_FINER = 6


@dataclass(frozen=True)
class AuditResult:
    """What an audit found, and what it cannot know.

    Parameters
    ----------
    method : str
        A key of `PRESUMPTIONS`.
    delta : float
        At which ε is bounded.
    confidence : float
        With which the bound holds, if `presumption` holds; NaN for an estimate.
    runs : int
        All that were made, in both worlds and for every canary.
    lower_bound : float, optional
        None when the method only gives an estimate.
    estimate : float, optional
        ε, if the method gives no bound.
    claimed : float, optional
        The accountant's ε for exactly what was audited; None: nothing is claimed.
    ceiling : float
        What a perfect attack would have got.
    tested, untested : str
        What was run, and what was not.
    note : str
        What a check of the presumption found.
    interval : (float, float), optional
        What an estimate's own fit leaves open.
    curve : numpy.ndarray
        (2, k): false and true positive rates over all thresholds.
    number : int, optional
        The audit's number in its `Session`.

    Examples
    --------
    >>> found = AuditResult("clopper-pearson", 1e-5, 0.95, 2000, 3.8799, claimed=2.0)
    >>> found.violated, "at least 3.87" in found.statement()
    (True, True)
    """

    method: str
    delta: float
    confidence: float
    runs: int
    lower_bound: float | None = None
    estimate: float | None = None
    claimed: float | None = None
    ceiling: float = math.inf
    tested: str = ""
    untested: str = "other canaries, other attacks, other data, and the code that was not called"
    note: str = ""
    interval: tuple[float, float] | None = None
    curve: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)), repr=False, compare=False)
    number: int | None = None

    def __post_init__(self) -> None:
        if self.claimed is None or self.claimed == math.inf:
            return
        # A claim that is no ε would never be refuted, or always.
        object.__setattr__(self, "claimed", between("claimed", self.claimed, math.inf))

    @property
    def presumption(self) -> str:
        """What must hold for the bound to be right; checked where it can be."""
        return PRESUMPTIONS.get(self.method, "")

    @property
    def violated(self) -> bool:
        """The lower bound exceeds the claimed ε. An estimate never violates anything."""
        if self.lower_bound is None or self.claimed is None:
            return False
        return self.lower_bound > self.claimed

    @property
    def verdict(self) -> str:
        """What became of the claim, with the condition under which that is so."""
        if not self.violated:
            return "not refuted, which is no proof"
        if self.method in _IF_GAUSSIAN:
            return "REFUTED if the noise is Gaussian"
        if self.method == "one-run-plan":
            return "REFUTED as this plan's claim"
        return "REFUTED"

    def statement(self) -> str:
        """The result in plain words."""
        parts = [self._found()]
        if self.presumption:
            parts.append(f"This presumes that {self.presumption}.")
        if self.note:
            parts.append(f"{self.note[0].upper()}{self.note[1:]}.")
        if self.claimed is not None:
            parts.append(f"The claim ε ≤ {up(self.claimed, self._digits())} is {self.verdict}.")
            if self.ceiling <= self.claimed and self.lower_bound is not None:
                parts.append(
                    f"A perfect attack would show {down(self.ceiling, _DIGITS)}: take more runs."
                )
        if self.number is not None and self.number > 1:
            parts.append(
                f"This is audit {self.number} of a series: that all its bounds hold together has "
                "less confidence than one (Session.statement)."
            )
        parts.append(f"Tested: {self.tested or 'the given scores'}. Not tested: {self.untested}.")
        return " ".join(parts)

    def _found(self) -> str:
        if self.lower_bound is None:
            text = f"Estimate, not a bound: ε is about {self.estimate:.3g} at δ = {self.delta:g}"
            if self.interval is not None:
                low, high = self.interval
                text += f"; its fit alone leaves {down(low, _DIGITS)} to {up(high, _DIGITS)} open"
            return f"{text}."
        # ε falls in δ: at a smaller δ the bound holds all the more.
        found = down(self.lower_bound, self._digits())
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return (
            f"With {down(100 * self.confidence, _FINER)} % confidence ε is at least {found} at "
            f"δ = {down(self.delta)} ({self.method}, {runs})."
        )

    def _digits(self) -> int:
        """Enough digits that a bound above its claim also reads so."""
        if not self.violated or self.lower_bound is None or self.claimed is None:
            return _DIGITS
        for digits in range(_DIGITS, _MOST_DIGITS):
            if float(down(self.lower_bound, digits)) > float(up(self.claimed, digits)):
                return digits
        return _MOST_DIGITS

    def to_dict(self) -> dict[str, Any]:
        """The numbers and words, without the curve, ready for JSON: what is not finite is None."""
        fields = {k: v for k, v in vars(self).items() if k != "curve"}
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[name] = None
        return fields | {"presumption": self.presumption, "violated": self.violated}

    def plot(self, ax: Axes | None = None, plan: PrivacyPlan | None = None) -> Axes:
        """Draw the measured curve, and those that the bound and the claim allow.

        Parameters
        ----------
        ax : Axes, optional
            None: new ones.
        plan : PrivacyPlan, optional
            Whose whole trade-off curve is drawn too: the measured curve of a sound mechanism stays
            below it, up to sampling error.

        Returns
        -------
        Axes
        """
        from fldp import plotting

        return plotting.trade_off(self, ax, plan)


_session: contextvars.ContextVar[Session | None] = contextvars.ContextVar("session", default=None)


class Session:
    """A series of audits: it counts all that are made inside, and says what the count costs.

    Ten true claims, each audited at 95 %, are all spared with at least 50 % only. Give the number
    of audits beforehand as `planned` and ask each at `session.level`: then all bounds hold together
    with probability `confidence` (union bound, whatever the audits share). Audits made without a
    plan are counted as well, and the joint confidence says what is left.

    Parameters
    ----------
    planned : int, optional
        How many audits will be made; None: unknown, and `level` is `confidence`.
    confidence : float
        With which all their bounds shall hold together, in (0, 1).

    Raises
    ------
    ValueError
        For a number or a confidence out of range.

    Examples
    --------
    >>> from fldp import audit
    >>> with Session(planned=2) as session:
    ...     for shift in (0.0, 3.0):
    ...         scores = np.linspace(0, 1, 200)
    ...         found = audit.from_scores(
    ...             scores + shift, scores, delta=0.0, confidence=session.level)
    >>> len(session.results), round(session.joint, 3)
    (2, 0.95)
    """

    def __init__(self, planned: int | None = None, confidence: float = 0.95) -> None:
        self.planned = None if planned is None else whole("planned", planned)
        self.confidence = real("confidence", confidence, 1)
        self.results: list[AuditResult] = []
        self._outer: contextvars.Token[Session | None] | None = None

    @property
    def level(self) -> float:
        """The confidence for each single audit."""
        return 1 - (1 - self.confidence) / (self.planned or 1)

    @property
    def joint(self) -> float:
        """A lower bound on the confidence with which all bounds so far hold together."""
        bounds = [r for r in self.results if r.lower_bound is not None]
        return max(0.0, 1 - sum(1 - r.confidence for r in bounds))

    def add(self, result: AuditResult) -> AuditResult:
        """Count an audit.

        Parameters
        ----------
        result : AuditResult
            What it found.

        Returns
        -------
        AuditResult
            The same, with its number.
        """
        numbered = dataclasses.replace(result, number=len(self.results) + 1)
        self.results.append(numbered)
        return numbered

    def statement(self) -> str:
        """How many audits there were, what they refuted, and with which joint confidence."""
        refuted = [r for r in self.results if r.violated]
        text = (
            f"{len(self.results)} audits were made, {len(refuted)} of them above the claim. "
            "All their bounds hold together with at least "
            f"{down(100 * self.joint, _DIGITS)} % confidence."
        )
        if self.planned is not None and len(self.results) > self.planned:
            text += f" Only {self.planned} were planned."
        for result in refuted:
            text += f" Audit {result.number}: {result.verdict} ({result.tested})."
        return text

    def __enter__(self) -> Session:
        self._outer = _session.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            _session.reset(self._outer)
            self._outer = None


def counted(audit: Callable[Options, AuditResult]) -> Callable[Options, AuditResult]:
    """A decorator: the session around an audit counts it once, whatever it calls itself.

    Parameters
    ----------
    audit : callable
        It returns an `AuditResult`.

    Returns
    -------
    callable
        With the same signature.
    """

    @functools.wraps(audit)
    def call(*args: Options.args, **kwargs: Options.kwargs) -> AuditResult:
        session = _session.get()
        # An audit that calls others is one audit.
        inside = _session.set(None)
        try:
            result = audit(*args, **kwargs)
        finally:
            _session.reset(inside)
        return result if session is None else session.add(result)

    return call
