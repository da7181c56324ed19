"""The round loop: sample, train locally, clip, noise, account, step, validate."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from fldp._checks import check_takes, shown, whole
from fldp._moved import renamed
from fldp.mechanism.clipping import Clip
from fldp.mechanism.noise import Gaussian
from fldp.plan import PrivacyPlan
from fldp.plan.ledger import Ledger
from fldp.simulation.algorithm import Algorithm
from fldp.simulation.checkpoint import Checkpoint
from fldp.simulation.clients import Population
from fldp.simulation.evaluation import Validation, evaluate
from fldp.simulation.history import History
from fldp.simulation.isolation import threads
from fldp.simulation.objective import Loss
from fldp.simulation.outcome import summary
from fldp.simulation.rounds import Run
from fldp.simulation.sampling import Sampler
from fldp.simulation.server import FedAvg
from fldp.simulation.setting import CanaryHook, Setting

__all__ = ["evaluate", "train"]


@renamed(noise_generator="generator")
def train(
    model: nn.Module,
    population: Population,
    plan: PrivacyPlan | None,
    *,
    clip: float | Clip | None = 1.0,
    local: Algorithm | None = None,
    server: FedAvg | None = None,
    validation: Validation | None = None,
    loss: Loss | None = None,
    metric: Any = None,
    seed: int | None = None,
    noise: Gaussian | None = None,
    generator: torch.Generator | None = None,
    weights: Sequence[float] | Tensor | str | None = None,
    weight_cap: float | None = None,
    weight_total: float | None = None,
    sampler: Sampler | None = None,
    rounds: int | None = None,
    cohort: float | None = None,
    patience: int | None = None,
    device: str | torch.device | None = None,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    callbacks: Sequence[Callable[[int, History], Any]] = (),
    canaries: CanaryHook | None = None,
) -> History:
    """A federated run under `plan`: what runs is what is accounted. The given model is untouched.

    Every round draws a cohort with the plan's sampler, trains it from the current model, clips each
    update, adds noise, records the event, releases the mean, and only then lets `server` step. A
    round that would exceed the plan's (ε, δ) is refused before anybody is sampled, and the run ends
    with the model so far.

    Guarantee: that of `history.statement`. A client's update depends on its own records, the
    current model and draws of its own, on no other client: everyone starts from the same module
    state, and what is tried beforehand is tried on made-up records. `history.model` is a function
    of the releases; its buffers are those of the model given.

    Parameters
    ----------
    model : nn.Module
        The start. A model with batch statistics is refused.
    population : Population
        The clients; as many as the plan says (without the canaries).
    plan : PrivacyPlan or None
        None is the baseline without privacy: give `rounds` and `cohort`.
    clip : float or Clip or None
        C, or a clip. None, without a plan only, does not clip.
    local, server : Algorithm, FedAvg, optional
        Local training (`LocalSGD()`) and the server's optimiser (`FedAvg()`).
    validation : (x, y), Dataset or Population, optional
        Evaluated after every round, in chunks. (x, y) and a torch Dataset of pairs must be public
        or somebody else's: choosing by them is not covered by ε. A `Population` is clients' own
        records: what is found on them stays in `history.private`.
    loss : callable, optional
        `loss(outputs, targets)`, the mean over a batch: a function of `torch.nn.functional`, a
        module, or your own. None: cross-entropy of whole labels, with the classes last, or second
        as torch has them; targets of -100 do not count. A model may return a tensor, a tuple that
        begins with one, or a dict or object with `logits`.
    metric : callable, optional
        `metric(outputs, targets)`, a mean over records, on the validation data; or an object with
        `reset`, `update` and `compute`. None: accuracy, where the loss is cross-entropy.
    seed : int, optional
        None takes cohorts, shuffles and training draws from the operating system, in secret. A
        number fixes them on every machine, never the noise; whoever knows it knows who took part,
        and `history.epsilon` and the statement's first line are then the ε of the most rounds that
        it gives any client. `history.accounted` holds while the draws are secret.
    noise : Gaussian, optional
        The run's noise, `Gaussian()` or `DiscreteGaussian()`; it lives as long as the run. None:
        fresh Gaussian noise, or the correlated noise that the plan accounts for.
    generator : torch.Generator, optional
        The same as `noise=Gaussian(generator)`: reproducible noise, which whoever knows its seed
        can subtract. The statement says so, also after a resume. Not beside `noise`.
    weights : sequence of float or "records", optional
        A number for each client of the population, or its number of records; None counts everyone
        once. Needs a public `weight_cap` unless all are equal: it sets the noise.
    weight_cap, weight_total : float, optional
        As for `PrivateAggregator`.
    sampler : Sampler, optional
        None is the plan's own; another is refused unless it draws what the plan accounts.
    rounds, cohort : int, float, optional
        T and m, without a plan only.
    patience : int, optional
        Stop when the validation accuracy, or the loss where the metric is another, has not improved
        for so many rounds; keep the best model.
    device : str or torch.device, optional
        Where clients train; None is where the model is.
    ledger : Ledger or path, optional
        Makes the account survive a crash. With a seed it must hold no earlier run.
    checkpoint : path, optional
        Makes the run survive a crash, with `resume=True`. The file is private and readable by its
        owner alone. An existing one is never overwritten by a new run. A plan that limits
        participations needs a ledger beside it: rounds that a crash cut off are skipped.
    resume : bool
        Go on from the checkpoint, which must exist; model, population, clip, server, local
        algorithm, sampler and validation must be those that it was made with.
    progress : bool
        Show a bar; it contains private figures, marked so.
    callbacks : sequence of callables
        Called with (round, history) after each round; one that returns True ends the run.
    canaries : CanaryHook, optional
        Made-up clients of an audit, the last `canaries.count` of the plan's N; central trust only.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        At once, before anybody is sampled, for settings that do not go together.

    Notes
    -----
    torch runs with `local.threads` threads (1 unless told otherwise) until `train` returns, and
    with the caller's setting again after it.

    Examples
    --------
    >>> import fldp
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=200, seed=0)
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=5, clients=200,
    ...                       cohort=100)
    >>> history = train(torch.nn.Linear(64, 10), people, plan, validation=(x, y))
    >>> len(history.accuracy), history.epsilon[-1] <= 8.0
    (5, True)
    """
    _check_files(checkpoint, resume, canaries)
    callbacks = _checked_callbacks(callbacks)
    if patience is not None:
        patience = whole("patience", patience)
        _check_choice(validation)
    with ExitStack() as stack:
        stack.enter_context(threads(getattr(local, "threads", 1)))
        run = Run(
            Setting(
                model=model,
                population=population,
                plan=plan,
                clip=clip,
                local=local,
                server=server,
                validation=validation,
                loss=loss,
                metric=metric,
                seed=seed,
                noise=noise,
                generator=generator,
                weights=weights,
                weight_cap=weight_cap,
                weight_total=weight_total,
                sampler=sampler,
                rounds=rounds,
                cohort=cohort,
                device=device,
                canaries=canaries,
            )
        )
        keeper = None
        if checkpoint is not None:
            keeper = Checkpoint(checkpoint, resume)
            run.identify()
            if run.attendance is not None and ledger is None:
                raise ValueError(
                    "the plan limits participations, and only a ledger knows of rounds that a "
                    "crash cut off: give ledger beside checkpoint"
                )
        if keeper is not None and resume:
            run.resume(keeper.load(run.flat.device), keeper.path, seed)
            if run.history.head is not None and ledger is None:
                raise ValueError("the run wrote a ledger: give that, or its account has a gap")
        book = _opened(ledger, plan, stack)
        if book is not None:
            run.account(book, resume)
        bar = stack.enter_context(_bar(run.total, run.done)) if progress else None
        _loop(run, book, keeper, bar, patience, callbacks)
        return run.result(patience)


def _check_choice(validation: Validation | None) -> None:
    """ValueError where there is nothing public to choose a model by."""
    if validation is None:
        raise ValueError(
            "patience counts rounds without progress on validation data: give validation, or leave "
            "patience out"
        )
    if isinstance(validation, Population):
        raise ValueError(
            "validation is a Population, clients' own records, and patience would choose the model "
            "by them, which no ε covers: give public records, or leave patience out"
        )


def _checked_callbacks(
    callbacks: Sequence[Callable[[int, History], Any]],
) -> list[Callable[[int, History], Any]]:
    """The callbacks in a list; ValueError for what cannot be called with (round, history)."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise ValueError(f"callbacks is {shown(callbacks)}: give a list of functions")
    found = list(callbacks)
    for callback in found:
        check_takes("a callback", callback, "(round, history)", 2)
    return found


def _check_files(
    checkpoint: str | os.PathLike[str] | None, resume: bool, canaries: CanaryHook | None
) -> None:
    """ValueError for a run that nothing could be resumed from, or whose audit would be."""
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise ValueError(f"checkpoint is {shown(checkpoint)}: give the path of a file")
    if checkpoint is None and resume:
        raise ValueError("resume is True, but there is no checkpoint: give its path")
    if checkpoint is not None and canaries is not None:
        raise ValueError(
            "canaries keep what they observed themselves: an audit takes no checkpoint"
        )


def _opened(
    ledger: Ledger | str | os.PathLike[str] | None, plan: PrivacyPlan | None, stack: ExitStack
) -> Ledger | None:
    """The ledger that was given, or the one at a path, which `stack` closes."""
    if ledger is None or isinstance(ledger, Ledger):
        return ledger
    return stack.enter_context(Ledger(ledger, plan))


def _loop(
    run: Run,
    book: Ledger | None,
    keeper: Checkpoint | None,
    bar: Any,
    patience: int | None,
    callbacks: Sequence[Callable[[int, History], Any]],
) -> None:
    """Round after round, until the run says that it is finished."""
    started = time.perf_counter()
    if keeper is not None:
        # Before the first round: what cannot be saved is refused, and what crashes can be resumed.
        keeper.save(run.state())
    while not run.finished(patience, book):
        run.round(book)
        if keeper is not None:
            keeper.save(run.state())
        if bar is not None:
            bar.set_postfix_str(summary(run.history))
            bar.update()
        stops = [callback(run.done, run.history) for callback in callbacks]
        if any(stop is True for stop in stops):
            run.history.stopped = f"a callback stopped the run after round {run.done}"
    run.history.seconds += time.perf_counter() - started


def _bar(total: int, done: int) -> Any:
    from tqdm import TqdmWarning
    from tqdm.auto import tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        return tqdm(total=total, initial=done, unit="round")
