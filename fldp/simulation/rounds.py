"""One run, round by round: what it keeps between two rounds, and what a round does."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fldp import accounting
from fldp.accounting import Filtered
from fldp.mechanism.correlation import Correlated, noise_of_run
from fldp.mechanism.updates import Layout, flatten, load_
from fldp.plan.ledger import Ledger
from fldp.simulation.attendance import Attendance
from fldp.simulation.averaging import Averaging
from fldp.simulation.checkpoint import compare, crowd, described, fingerprint, outline
from fldp.simulation.draws import Draws
from fldp.simulation.history import History
from fldp.simulation.isolation import copied
from fldp.simulation.local import LocalSGD
from fldp.simulation.monitor import Monitor
from fldp.simulation.outcome import guarantee
from fldp.simulation.sampling import drawn
from fldp.simulation.server import FedAvg
from fldp.simulation.setting import Setting

# What a checkpoint keeps of a history; its events are written out beside.
_KEPT = (
    "metric",
    "loss",
    "clip_norm",
    "participations",
    "private",
    "best_round",
    "seconds",
    "head",
)

# What a history keeps of what the server saw in a round, by its name in a release's private part.
_SEEN = ("clipped_fraction", "malformed", "zero")


def _whole_precision(flat: Tensor) -> Tensor:
    """The global model in at least single precision: in less, small steps would be lost."""
    return flat if flat.dtype == torch.float64 else flat.float()


class Run:
    """The state of a run between two rounds.

    Parameters
    ----------
    given : Setting
        What `train` was called with.

    Raises
    ------
    ValueError
        For what does not go together, before anybody is sampled.
    """

    def __init__(self, given: Setting) -> None:
        self.plan = given.plan
        self.population = given.population
        self.canaries = given.canaries
        self.local: Any = LocalSGD() if given.local is None else copy.deepcopy(given.local)
        self.server = FedAvg() if given.server is None else copy.deepcopy(given.server)
        self.server.reset()
        self.clip = given.clipping()
        self.clients = given.clients
        self.total, self.cohort = given.schedule()
        self.sampler = given.cohorts(self.local)
        # Never run: what clients start from, and what the trained weights are put into.
        self.model = self.local.prepare(given.placed())
        self.flat = _whole_precision(flatten(self.model))
        self.objective = given.objective()
        self.local.learn(self.objective)
        self.exam = given.exam(self.objective)
        self.draws = Draws(given.seed)
        # Lives as long as the run: what a round's noise depends on is in every checkpoint.
        self.noise = noise_of_run(self.plan, given.noise, given.generator)
        self.reproducible = self.noise.reproducible
        self.averaging = self._averaging(given)
        self.done = 0
        # The best merit on the validation data, and the vector that reached it.
        self.best = (-math.inf, self.flat)
        self.history = History(self.plan, measure=self.objective.metric_name)
        self.history.private |= {name: [] for name in ("cohort", *_SEEN)}
        if self.plan is not None and self.plan.trust == "distributed":
            self.history.private["skipped"] = []
        if self.exam is not None and self.exam.private:
            self.history.private |= {"metric": [], "loss": []}
        # Against whoever knows the seed the coins are known: a client pays for its own rounds.
        if self.draws.seeded and self.plan is not None and self.plan.event.sampling != "none":
            self.history.participations = []
        self.served = torch.zeros(self.clients, dtype=torch.int64)
        # Where a plan limits participations the run holds to it, and a round is run once.
        self.attendance = Attendance.of(self.plan, self.clients)
        if self.attendance is not None:
            self.history.private["lost"] = []
        # Rounds of this run that the ledger holds and no checkpoint does: a crash cut them off.
        self.lost = 0
        self.local.begin(self.population, self.total, self.cohort / self.clients)
        self.local.rehearse(self.model, self.flat, self.population)
        self.history.engine = self.local.trained_by()
        self.monitor = Monitor.of(self.exam, self.model)
        self._begun_with: dict[str, str] = {}
        self._repeats = False

    def _averaging(self, given: Setting) -> Averaging:
        """What turns a cohort's updates into a mean, in this model's structure."""
        layout = Layout.of_rows(self.model, self.flat, self.local.width(len(self.flat)))
        if self.clip is not None:
            self.clip.prepare(layout)
            self.noise.check_clip(self.clip)
        weights = given.client_weights(self.local)
        denominator = weights.denominator(self.cohort, self.clients)
        return Averaging(self.plan, layout, self.clip, self.noise, weights, denominator)

    def identify(self) -> None:
        """Note, for checkpoints, what a resumed run must still be; before the first round."""
        validation = "none"
        if self.exam is not None:
            validation = ", ".join(map(fingerprint, self.exam.parts))
        self._begun_with = {
            "plan": described(None if self.plan is None else self.plan.to_dict()),
            "model": outline(self.model),
            "population": crowd(self.population),
            "clip": described(self.clip),
            "local algorithm": described(self.local),
            "server": described(self.server),
            "sampler": described(self.sampler),
            "noise mechanism": described(self.noise),
            "weights": described(self.averaging.weights),
            "validation": validation,
            "loss": described(self.objective.loss),
            "metric": described(self.objective.metric),
            "rounds": str(self.total),
            "cohort": f"{self.cohort:.17g}",
        }

    def account(self, book: Ledger, resumed: bool) -> None:
        """What the ledger holds besides this run is spent, whatever came of it.

        Raises ValueError where the ledger is not the one that this run wrote, and where a seed
        would draw an earlier run's cohorts again.
        """
        if book.plan not in (None, self.plan):
            raise ValueError(f"{book.path} is the ledger of another plan: give this plan's own")
        own, held = Counter(self.history.events), Counter(book.events)
        if self.history.head is not None:
            book.check(self.history.head)
        # A ledger that this run never wrote may hold as many rounds, of another run.
        strange = resumed and self.history.head is None and (own or held)
        if own - held or strange:
            raise ValueError(
                f"{book.path} does not hold exactly the rounds that this run has released: resume "
                "with the ledger that it wrote, or without one if it wrote none"
            )
        self.history.head = book.head
        self._skip_lost(book)
        self.history.note(book.events)
        if self.history.participations is not None and self.plan is not None:
            # Rounds of this plan are an earlier run's, whatever label they stand under.
            training = [
                entry.event.rounds
                for entry in book.entries
                if entry.label == "training" or self.plan.owns(entry.event)
            ]
            self._drawn_before(sum(training) - len(self.history.events), resumed, book)

    def _skip_lost(self, book: Ledger) -> None:
        """Rounds that a crash cut off may have been released: those of limited runs are spent.

        The ledger has them, and the checkpoint does not. Their cohorts took part, and their noise
        is never made again: the run goes on with the round after them.
        """
        if self.attendance is None or not isinstance(self.noise, Correlated):
            return
        held = [e for e in book.events if isinstance(e, Filtered) and e.run == self.noise.run]
        lost = held[len(self.history.events) :]
        self.noise.skip(len(lost))
        for event in lost:
            ids = drawn(self.sampler, self.clients, self.draws, self.done)
            self.attendance.admit(ids, self.done)
            self.history.events.append(event)
            for name in _SEEN:
                self.history.private[name].append(0)
            norm = math.inf
            if self.clip is not None:
                norm = float(self.clip.norm)
            self._close(ids, norm, lost=1)

    def _drawn_before(self, earlier: int, resumed: bool, book: Ledger) -> None:
        """With a seed, `earlier` rounds of the ledger may have had the cohorts that come next."""
        if earlier and not resumed:
            raise ValueError(
                f"{book.path} holds {earlier} rounds of an earlier run: a seed may draw its "
                "cohorts again, and two rounds with one cohort are not accounted as two draws. "
                "Leave seed out, or resume that run from its checkpoint"
            )
        if earlier != self.lost and not self._repeats:
            self.draws.renew(f"restart {earlier}".encode())
        self.lost = earlier

    def finished(self, patience: int | None, book: Ledger | None = None) -> bool:
        history = self.history
        if isinstance(self.noise, Correlated):
            self.noise.check_rounds(self.done)
        if book is not None:
            # A callback may have released something else meanwhile.
            history.note(book.events)
        plan = self.plan
        if history.stopped:
            return True
        if self.done >= self.total:
            history.stopped = f"all {self.total} rounds are done"
        elif patience is not None and self.done - history.best_round >= patience:
            history.stopped = (
                f"validation {history.chosen_by} has not improved for {patience} rounds; the model "
                f"is that of round {history.best_round}"
            )
        elif plan is not None and not plan.affords(
            [*history.before, *history.events, *self.noise.events(plan, 1, len(self.flat))]
        ):
            history.stopped = (
                f"round {self.done + 1} would exceed ε = {plan.target_epsilon:g} at δ = "
                f"{plan.delta:g}: refused before sampling; the model is that of round {self.done}"
            )
        return bool(history.stopped)

    def round(self, book: Ledger | None) -> None:
        """One round; the event is on disk before the release exists."""
        ids = drawn(self.sampler, self.clients, self.draws, self.done)
        if self.attendance is not None:
            self.attendance.admit(ids, self.done)
        real = ids[ids < len(self.population)]
        rows = self.local.updates(
            self.model, self.flat, self.population, real, self.draws, round=self.done
        )
        averaged = self.averaging.mean(self._chunks(ids, rows), book, self.done + 1, len(ids))
        history = self.history
        if averaged.event is not None:
            history.events.append(averaged.event)
        if averaged.mean is not None:
            self._move(averaged.mean)
        for name in _SEEN:
            history.private[name].append(getattr(averaged.private, name))
        if "skipped" in history.private:
            history.private["skipped"].append(int(averaged.mean is None))
        if book is not None:
            history.head = book.head
        self._close(ids, float(averaged.clip_norm))

    def _close(self, ids: Tensor, norm: float, lost: int = 0) -> None:
        """A round is over, or lost: note who came, and what the model is worth."""
        self.done += 1
        self.history.clip_norm.append(norm)
        self.history.private["cohort"].append(len(ids))
        if "lost" in self.history.private:
            self.history.private["lost"].append(lost)
        self._count(ids)
        self._validate()

    def _validate(self) -> None:
        if self.monitor is None:
            return
        reported = self.server.report(self.flat)
        merit = self.monitor.note(reported, self.history)
        if merit > self.best[0]:
            self.best = (merit, reported.clone())
            self.history.best_round = self.done

    def _move(self, mean: Tensor) -> None:
        """A release moves the model; a round that was skipped does not."""
        if self.canaries is not None:
            self.canaries.observe(mean, self.done)
        step = self.local.absorb(mean, self.cohort / self.clients)
        self.flat = self.server.step(self.flat, step, self.done / self.total)

    def _count(self, ids: Tensor) -> None:
        """With a seed: the most rounds of any client so far, with those that a crash cut off."""
        told = self.history.participations
        if told is None or self.plan is None:
            return
        self.served[ids] += 1
        most = int(self.served.max()) + self.lost
        told.append(min(most, self.plan.rounds))

    def _chunks(self, ids: Tensor, rows: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The cohort's updates with their senders, in the order of `ids`; canaries come last."""
        start = 0
        for chunk in rows:
            yield ids[start : start + len(chunk)], chunk
            start += len(chunk)
        made_up = ids[start:]
        if self.canaries is not None and len(made_up):
            yield made_up, self.canaries.rows(made_up, self.done).to(self.flat)

    def _pieces(self) -> dict[str, Any]:
        pieces: dict[str, Any] = {
            "server": self.server,
            "local": self.local,
            "sampler": self.sampler,
            "noise": self.noise,
        }
        if self.attendance is not None:
            pieces["attendance"] = self.attendance
        return pieces if self.clip is None else pieces | {"clip": self.clip}

    def state(self) -> dict[str, Any]:
        """Everything the next round depends on, and what the run must still be."""
        state: dict[str, Any] = {
            "identity": self._begun_with,
            "done": self.done,
            "flat": self.flat,
            "best": list(self.best),
            "draws": self.draws.state_dict(),
            "served": self.served,
            "lost": self.lost,
            "events": [event.to_dict() for event in self.history.events],
            "reproducible": self.reproducible,
        }
        state |= {name: piece.state_dict() for name, piece in self._pieces().items()}
        state["history"] = {name: getattr(self.history, name) for name in _KEPT}
        return state

    def resume(self, state: dict[str, Any], path: Path, seed: int | None) -> None:
        """Continue from `state`; a ValueError names what is not as it was."""
        compare(path, state["identity"], self._begun_with)
        given = self.draws
        self.draws = Draws(0)
        self.draws.load_state_dict(state["draws"])
        if seed is not None and not self.draws.same(given):
            raise ValueError(
                f"{path} is the checkpoint of a run with another seed, or with none: leave seed out"
            )
        self.done = state["done"]
        self.flat = state["flat"].to(self.flat)
        self.best = (float(state["best"][0]), state["best"][1].to(self.flat))
        self.served = state["served"].cpu()
        self.lost = state["lost"]
        for name, piece in self._pieces().items():
            piece.load_state_dict(state[name])
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.history.events = [accounting.event_from_dict(event) for event in state["events"]]
        # A round that a crash cut off may have been released. Where its noise repeats, so do its
        # draws: the same release again tells nobody more. Otherwise its cohort is drawn anew.
        # Under a plan that limits participations it is skipped, and no coin is tossed twice.
        again = self.attendance is None
        if again and self.noise.reproducible and state["noise"]:
            self._repeats = True
        elif again and not self.draws.seeded:
            self.draws.renew()
        self.reproducible = self.reproducible or state["reproducible"]

    def result(self, patience: int | None) -> History:
        """The trained model and what the run guarantees."""
        chosen = patience is not None and self.exam is not None
        vector = self.best[1] if chosen else self.server.report(self.flat)
        self.history.model = load_(copied(self.model), vector)
        self.history.statement = guarantee(self, chosen)
        return self.history
