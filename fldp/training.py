"""The round loop: sample, train locally, clip, noise, account, step, validate."""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fldp.accounting import Event
from fldp.aggregation import PrivateAggregator
from fldp.clients import Population
from fldp.clipping import FlatClip
from fldp.history import History, spent
from fldp.ledger import Ledger, atomic
from fldp.local import Algorithm, LocalSGD
from fldp.parameters import flatten, load_
from fldp.plan import PrivacyPlan
from fldp.sampling import Everyone, Poisson, Sampler, for_plan
from fldp.server import FedAvg


def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of a classifier on (x, y)."""
    training = model.training
    model.eval()
    with torch.no_grad():
        scores = model(x)
        loss = float(nn.functional.cross_entropy(scores, y))
        accuracy = float((scores.argmax(1) == y).double().mean())
    model.train(training)
    return accuracy, loss


def train(
    model: nn.Module,
    population: Population,
    plan: PrivacyPlan | None,
    *,
    clip: float | Any = 1.0,
    local: Algorithm | None = None,
    server: FedAvg | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    noise_generator: torch.Generator | None = None,
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
) -> History:
    """A federated run under `plan`: what runs is what is accounted. The given model is untouched.

    Every round draws a cohort with the plan's sampler, trains it from the current model, clips each
    update, adds noise, records the event, releases the mean, and only then lets `server` step. A
    round that would exceed the plan's (ε, δ) is refused before anybody is sampled, and the run ends
    with the model so far. `plan=None` is the baseline without privacy: give `rounds` and `cohort`
    (`clip=None` does not clip).

    `seed` governs sampling and local training. Noise comes from the operating system unless
    `noise_generator` is given, and then `history.statement` says so. `patience`: stop when the
    validation accuracy has not improved for so many rounds, and keep the best model. The validation
    data must be public or somebody else's: choosing by it is not covered by ε. `ledger` (a path)
    makes the account survive a crash, `checkpoint` (a path) with `resume=True` the run.

    >>> import fldp
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=200, seed=0)
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=5, clients=200, cohort=100)
    >>> history = train(torch.nn.Linear(64, 10), people, plan, validation=(x, y))
    >>> len(history.accuracy), history.epsilon[-1] <= 8.0
    (5, True)
    """
    run = _Run(model, population, plan, clip, local, server, validation, seed, noise_generator,
               sampler, rounds, cohort, device)  # fmt: skip
    with ExitStack() as stack:
        book = ledger
        if book is not None and not isinstance(book, Ledger):
            book = stack.enter_context(Ledger(book, plan))
        if resume and checkpoint is not None and Path(checkpoint).exists():
            run.load(Path(checkpoint))
        run.account(book)
        bar = stack.enter_context(_bar(run.total, run.done)) if progress else None
        started = time.perf_counter()
        while not run.finished(patience):
            run.round(book)
            if checkpoint is not None:
                run.save(Path(checkpoint))
            if bar is not None:
                bar.set_postfix_str(run.summary())
                bar.update()
            stops = [callback(run.done, run.history) for callback in callbacks]
            if any(stop is True for stop in stops):
                run.history.stopped = f"a callback stopped the run after round {run.done}"
        run.history.seconds += time.perf_counter() - started
    return run.result(patience)


class _Run:
    """The state of a run between two rounds."""

    def __init__(
        self, model: nn.Module, population: Population, plan: PrivacyPlan | None, clip: Any,
        local: Algorithm | None, server: FedAvg | None,
        validation: tuple[Tensor, Tensor] | None, seed: int,
        noise_generator: torch.Generator | None, sampler: Sampler | None, rounds: int | None,
        cohort: float | None, device: str | torch.device | None,
    ) -> None:  # fmt: skip
        where = torch.device(device) if device is not None else flatten(model).device
        self.local: Any = LocalSGD() if local is None else copy.deepcopy(local)
        self.server = FedAvg() if server is None else copy.deepcopy(server)
        self.server.reset()
        self.model = self.local.prepare(copy.deepcopy(model).to(where))
        self.flat = flatten(self.model)
        self.population, self.plan = population, plan
        self.clip = FlatClip(clip) if isinstance(clip, int | float) else copy.deepcopy(clip)
        self.validation = None if validation is None else _checked(validation, where)
        self.noise_generator = noise_generator
        self.draws = torch.Generator().manual_seed(seed)
        self.training = torch.Generator().manual_seed(seed + 2**32)
        self.done, self.best = 0, (-1.0, self.flat)
        self.history = History(plan, private={"cohort": [], "clipped_fraction": []})
        count = len(population)
        if plan is None:
            if rounds is None or rounds < 1 or noise_generator is not None:
                raise ValueError(
                    f"without a plan there is no noise: give rounds (got {rounds!r}) and no "
                    "noise_generator"
                )
            self.total, self.cohort = int(rounds), float(count if cohort is None else cohort)
            if not 0 < self.cohort <= count:
                raise ValueError(f"cohort is {cohort!r}: give a number in (0, {count}]")
            usual: Sampler = Poisson(self.cohort / count) if self.cohort < count else Everyone()
            self.sampler = sampler or usual
            self.local.begin(population, self.total, self.cohort / count)
            return
        if rounds is not None or cohort is not None:
            raise ValueError("rounds and cohort are the plan's: calibrate a plan with other ones")
        if clip is None:
            raise ValueError("clip is None: without a bound on an update no noise hides it")
        if plan.clients != count:
            raise ValueError(
                f"the plan is for {plan.clients} clients, the population has {count}: calibrate "
                "for the population that runs (fldp.extrapolate compares it with a larger one)"
            )
        self.total, self.cohort = plan.rounds, plan.denominator
        self.sampler = for_plan(plan) if sampler is None else copy.deepcopy(sampler)
        if not self.sampler.matches(plan):
            raise ValueError(
                f"{self.sampler} is not what the plan accounts for (sampling={plan.sampling!r}, "
                f"q={plan.sampling_rate:g}, cap={plan.cap}, adjacency={plan.adjacency!r}): "
                "calibrate a plan for this sampler, or leave sampler out"
            )
        if self.local.remembers and (plan.sampling == "fixed" or plan.cap is not None):
            told = "fixed" if plan.cap is None else f"poisson with cap={plan.cap}"
            raise ValueError(
                f"sampling is {told}: one client's draw then moves what others remember, which is "
                f"not accounted; run {type(self.local).__name__} under sampling='poisson' without "
                "a cap, or with everyone"
            )
        self.local.begin(population, self.total, plan.cohort / count)

    def account(self, book: Ledger | None) -> None:
        """What an earlier run has put into the ledger is spent, whatever came of it."""
        if book is not None:
            self.history.before = book.events[: len(book.events) - len(self.history.events)]

    def finished(self, patience: int | None) -> bool:
        history, plan = self.history, self.plan
        if history.stopped:
            return True
        if self.done >= self.total:
            history.stopped = f"all {self.total} rounds are done"
        elif patience is not None and self.done - history.best_round >= patience:
            history.stopped = (
                f"validation accuracy has not improved for {patience} rounds; the model is that of "
                f"round {history.best_round}"
            )
        elif plan is not None and not self._affordable(plan):
            history.stopped = (
                f"round {self.done + 1} would exceed ε = {plan.target_epsilon:g} at δ = "
                f"{plan.delta:g}: refused before sampling; the model is that of round {self.done}"
            )
        return bool(history.stopped)

    def _affordable(self, plan: PrivacyPlan) -> bool:
        events = [*self.history.before, *self.history.events, plan.event]
        if len(events) <= plan.rounds and all(event == plan.event for event in events):
            return True  # within what was calibrated
        return spent(plan, events) <= plan.target_epsilon * (1 + 1e-6)

    def round(self, book: Ledger | None) -> None:
        """One round; the event is on disk before the release exists."""
        ids = self.sampler.sample(len(self.population), self.draws)
        rows = self.local.updates(
            self.model, self.flat, self.population, ids, self.training, round=self.done
        )
        width = self.local.width(len(self.flat))
        history, like = self.history, self.flat.new_zeros(width)
        if self.plan is None:
            mean, clipped = self._without_noise(rows, like)
            norm = math.inf if self.clip is None else self.clip.norm
        else:
            aggregator = PrivateAggregator(
                like, self.plan, self.clip, generator=self.noise_generator
            )
            for chunk in rows:
                aggregator.add(chunk)
            if book is not None:
                book.record(aggregator.event, self.done + 1)
            release = aggregator.release()
            history.events.append(release.event)
            mean, norm = release.mean, release.clip_norm
            clipped = release.private.clipped_fraction
        rate = self.cohort / len(self.population)
        step = self.local.absorb(mean, rate)
        self.flat = self.server.step(self.flat, step, self.done / self.total)
        self.done += 1
        history.clip_norm.append(float(norm))
        history.private["cohort"].append(len(ids))
        history.private["clipped_fraction"].append(clipped)
        self._validate()

    def _without_noise(self, rows: Any, like: Tensor) -> tuple[Tensor, float]:
        total, clipped, count = like.clone(), 0, 0
        for chunk in rows:
            factors = chunk.new_ones(len(chunk))
            if self.clip is not None:
                factors = self.clip.scales(chunk).to(chunk.dtype).reshape(len(chunk))
            total += factors @ chunk
            clipped, count = clipped + int((factors < 1).sum()), count + len(chunk)
        return total / self.cohort, clipped / max(1, count)

    def _validate(self) -> None:
        if self.validation is None:
            return
        reported = self.server.report(self.flat)
        accuracy, loss = evaluate(load_(self.model, reported), *self.validation)
        self.history.accuracy.append(accuracy)
        self.history.loss.append(loss)
        if accuracy > self.best[0]:
            self.best, self.history.best_round = (accuracy, reported.clone()), self.done

    def summary(self) -> str:
        parts = []
        if self.plan is not None:
            now = spent(self.plan, [*self.history.before, *self.history.events])
            parts.append(f"ε={now:.2f}/{self.plan.target_epsilon:g}")
        if self.history.accuracy:
            parts.append(f"accuracy={self.history.accuracy[-1]:.3f}")
        parts.append(f"clipped={self.history.private['clipped_fraction'][-1]:.0%} (private)")
        return " ".join(parts)

    def _pieces(self) -> dict[str, Any]:
        pieces = {"server": self.server, "local": self.local, "sampler": self.sampler}
        return pieces if self.clip is None else pieces | {"clip": self.clip}

    def save(self, path: Path) -> None:
        """Everything the next round depends on, replaced atomically."""
        state: dict[str, Any] = {
            "plan": None if self.plan is None else self.plan.to_dict(), "done": self.done,
            "flat": self.flat, "best": self.best, "draws": self.draws.get_state(),
            "training": self.training.get_state(),
            "events": [event.to_dict() for event in self.history.events],
            "noise": None if self.noise_generator is None else self.noise_generator.get_state(),
        }  # fmt: skip
        state |= {name: piece.state_dict() for name, piece in self._pieces().items()}
        names = ("accuracy", "loss", "clip_norm", "private", "best_round", "seconds")
        state["history"] = {name: getattr(self.history, name) for name in names}
        with atomic(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Continue from `save`; a checkpoint of another plan is refused."""
        state = torch.load(path, map_location=self.flat.device, weights_only=True)
        if state["plan"] != (None if self.plan is None else self.plan.to_dict()):
            raise ValueError(f"{path} is the checkpoint of another plan: give a new path")
        if len(state["flat"]) != len(self.flat):
            raise ValueError(f"{path} is the checkpoint of another model: give a new path")
        self.done, self.flat, self.best = state["done"], state["flat"], tuple(state["best"])
        self.draws.set_state(state["draws"].cpu())
        self.training.set_state(state["training"].cpu())
        if self.noise_generator is not None and state["noise"] is not None:
            self.noise_generator.set_state(state["noise"].cpu())
        for name, piece in self._pieces().items():
            piece.load_state_dict(state[name])
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.history.events = [Event.from_dict(event) for event in state["events"]]

    def result(self, patience: int | None) -> History:
        chosen = patience is not None and self.validation is not None
        load_(self.model, self.best[1] if chosen else self.server.report(self.flat))
        self.history.model = self.model
        own = self.local.statement()
        if self.plan is None:
            nothing = "No noise was added: this run guarantees nothing to anybody."
            client = f"{own}\nClient level: this run guarantees nothing."
            self.history.statement = client if own else nothing
        else:
            told = self.plan.statement(reproducible=self.noise_generator is not None)
            if chosen:
                told += (
                    "\nThe model was chosen by its validation accuracy. If those records are the "
                    "clients' own, that choice is not covered."
                )
            self.history.statement = f"{told}\n{own}" if own else told
        return self.history


def _checked(validation: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    x, y = validation
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"validation has {len(x)} inputs and {len(y)} labels: give as many")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("validation inputs contain NaN or infinite values: clean them first")
    return x.to(device), y.to(device)


def _bar(total: int, done: int) -> Any:
    from tqdm import TqdmWarning
    from tqdm.auto import tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        return tqdm(total=total, initial=done, unit="round")
