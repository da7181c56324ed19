"""A strategy around any of Flower's averaging strategies, which sees the noisy mean alone."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from torch import Tensor

from fldp._checks import between, shown, whole
from fldp._text import fill, up
from fldp.flower.arrays import parameters, record_of, update_in, weight_in
from fldp.flower.deployment import absolute, check_enforced, refuse_overrides
from fldp.flower.inner import check_strategy, kept, no_metrics
from fldp.flower.nodes import OneReply, Roster, connected
from fldp.flower.progress import Progress, load_optimiser, optimiser_state
from fldp.flower.replies import exchange, silence
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.clipping import Clip, as_clip
from fldp.mechanism.intake import check_plan, check_weights
from fldp.mechanism.noise import Gaussian, as_noise
from fldp.mechanism.updates import Layout
from fldp.plan import PrivacyPlan
from fldp.plan.ledger import Ledger
from fldp.simulation.averaging import Averaging, Weights
from fldp.simulation.checkpoint import described
from fldp.simulation.draws import Draws
from fldp.simulation.sampling import drawn, for_plan

_LOG = logging.getLogger("flwr")
# Seconds between two looks at how many nodes are connected.
_GLANCE = 1.0


class Private(Strategy):
    """`strategy` under `plan`: client-level privacy on Flower, whoever is connected.

    Guarantee: that of `statement`, with a node as the client. Every round draws coins for the N
    slots of the plan, of which the connected nodes take the first; clips each reply to C; adds the
    plan's noise; records the event on disk; and only then shows `strategy` one reply, the current
    model plus the noisy mean. Whatever `strategy` makes of it (FedAdam, FedAvgM, FedProx) is
    post-processing. A node that is absent, late, malformed, asked by nobody, or answers twice adds
    zero, and changes neither the noise nor the denominator. Clients' metrics are not released:
    nobody is asked to evaluate. A round beyond the plan's ε is refused before anybody is drawn.

    Nothing in `private`, what the server saw in the last round, is for release.

    Parameters
    ----------
    strategy : FedAvg
        Flower's, or one that extends it. What it samples and weighs by is not used.
    plan : PrivacyPlan
        Of central trust; N is the most nodes that may be connected.
    clip : float or Clip
        C, or a clip.
    ledger : path
        Absolute, on the server; one ledger for a population. It goes on where it ends.
    checkpoint : path, optional
        Absolute. A run that is started again goes on after its last finished round. None: it
        begins at round 1, and the account goes on all the same.
    weight_cap, weight_total : float, optional
        As for `PrivateAggregator`; a client's weight is `strategy.weighted_by_key` in its metrics.
    min_nodes : int
        While fewer nodes are connected no round begins, and nothing is spent.
    roster : iterable of bytes or str, optional
        The public keys of the clients' nodes. None: nobody but the SuperLink sees to it that a
        device is one node.
    noise : Gaussian, optional
        The run's noise, `Gaussian()` or `DiscreteGaussian()`.

    Raises
    ------
    ValueError
        At once, for what does not go together; nothing is spent then.

    Examples
    --------
    >>> import tempfile, fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=10, clients=1000)
    >>> path = tempfile.mkdtemp() + "/ledger.jsonl"
    >>> strategy = Private(FedAvg(), plan, clip=1.0, ledger=path)
    >>> strategy.epsilon
    0.0
    """

    def __init__(
        self,
        strategy: FedAvg,
        plan: PrivacyPlan,
        clip: float | Clip = 1.0,
        *,
        ledger: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] | None = None,
        weight_cap: float | None = None,
        weight_total: float | None = None,
        min_nodes: int = 1,
        roster: Iterable[bytes | str] | None = None,
        noise: Gaussian | None = None,
    ) -> None:
        check_plan(plan)
        check_enforced(plan)
        check_strategy(strategy)
        self.strategy = strategy
        strategy.train_metrics_aggr_fn = no_metrics
        self.plan = plan
        # The run's own: an adaptive clip moves.
        self.clip = copy.deepcopy(as_clip(clip))
        self.noise = as_noise(noise, None)
        self.noise.check(plan)
        self.min_nodes = whole("min_nodes", min_nodes)
        self.roster = None if roster is None else Roster(roster)
        if max(self.min_nodes, len(self.roster or ())) > plan.clients:
            raise ValueError(
                f"min_nodes is {min_nodes}, the roster has {len(self.roster or ())} keys, and the "
                f"plan is for {plan.clients} clients: neither may be more"
            )
        cap, total = check_weights(weight_cap, weight_total)
        self._weights = Weights(None, cap, total)
        self._paths = [absolute("ledger", ledger)]
        if checkpoint is not None:
            self._paths.append(absolute("checkpoint", checkpoint))
        if len({path.resolve() for path in self._paths}) < len(self._paths):
            raise ValueError(f"ledger and checkpoint are both {shown(checkpoint)}: give two paths")
        self._begun_with = {
            "plan": described(plan.to_dict()),
            "clip": described(self.clip),
            "strategy": described(strategy),
            "weights": described([cap, total]),
            "noise mechanism": described(self.noise),
        }
        self.private: dict[str, Any] = {}
        # Entries of the ledger that the noise has gone through, where it comes from a generator.
        self._noised = 0
        self._model: dict[str, Tensor] = {}
        self._waiting: dict[int, Message] = {}
        self._open: tuple[int, PrivateAggregator] | None = None
        # Last: what is refused above leaves no lock behind.
        self.ledger = Ledger(ledger, plan)

    @property
    def epsilon(self) -> float:
        """ε of everything in the ledger, at the plan's δ."""
        return self.plan.spent(self.ledger.events)

    @property
    def statement(self) -> str:
        """What holds for whom against whom, with what was spent; ε and δ are rounded up."""
        weights = self._weights
        denominator = weights.denominator(self.plan.cohort, self.plan.clients)
        # Its words depend on no structure.
        nothing = Layout(torch.zeros(1))
        averaging = Averaging(self.plan, nothing, self.clip, self.noise, weights, denominator)
        who = "A client is a node that shows a key of the roster: one key, one client."
        if self.roster is None:
            who = (
                "A client is a connected node. That a device is one node, and not two after a "
                "restart, is the SuperLink's to see to: authenticate nodes, and give a roster."
            )
        lines = [
            *averaging.words(),
            who,
            "Flower: the SuperLink, its database and logs, and whoever may submit runs see what "
            "clients send; they are trusted.",
            f"The ledger holds {len(self.ledger.events)} rounds and other releases: together "
            f"ε = {up(self.epsilon)} so far.",
        ]
        plan = self.plan.statement(self.noise.reproducible)
        return "\n".join([plan, *(fill(line) for line in lines if line)])

    def __reduce__(self) -> NoReturn:
        raise ValueError("a strategy under a plan is not copied or pickled: one run, one ledger")

    def close(self) -> None:
        """Let another run write the ledger."""
        self.ledger.close()

    # What Flower's loop calls, and `start` below.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """The messages of a round to the nodes that were drawn; who they are is private.

        Raises `PrivacyBudgetExhausted` before anybody is drawn, where the round would exceed ε.
        """
        if not self.plan.affords([*self.ledger.events, self.plan.event]):
            raise PrivacyBudgetExhausted(
                f"a further round would exceed ε = {self.plan.target_epsilon:g} at δ = "
                f"{self.plan.delta:g}: refused before anybody was drawn"
            )
        if self.noise.reproducible and self._noised != len(self.ledger.events):
            # Other replies with the same noise: their difference would have none.
            raise ValueError(
                f"{self.ledger.path} holds releases that this generator has not gone through, and "
                "it could make their noise again: leave the generator out, or give another ledger"
            )
        refuse_overrides(grid, self._paths)
        self._model = parameters(arrays)
        # Whatever does not go together is refused here, before the coins.
        aggregator = PrivateAggregator(
            self._model,
            self.plan,
            self.clip,
            weight_cap=self._weights.cap,
            weight_total=self._weights.total,
            noise=self.noise,
            strict=False,
        )
        content = self._instruction(server_round, arrays, config)
        nodes = connected(grid, self.plan.clients, self.roster)
        # A key for this round alone: a round that is begun again tosses other coins.
        slots = drawn(for_plan(self.plan), self.plan.clients, Draws(), server_round)
        asked = [nodes[slot] for slot in slots.tolist() if slot < len(nodes)]
        self._waiting = {
            node: Message(content, message_type=MessageType.TRAIN, dst_node_id=node)
            for node in asked
        }
        self._open = (server_round, aggregator)
        self.private = {"asked": len(asked), "failed": 0, "strangers": 0}
        return list(self._waiting.values())

    def _instruction(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> RecordDict:
        """What the inner strategy sends to everybody."""
        with silence():
            messages = self.strategy.configure_train(
                server_round, arrays, config, OneReply(self.strategy)
            )
        for message in messages:
            return message.content
        raise ValueError("the inner strategy sends nothing: give it a fraction_train above 0")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The model after the inner strategy's step on the noisy mean; never any metrics."""
        if self._open is None or self._open[0] != server_round:
            raise ValueError(
                f"round {server_round} is not open: its replies were released already, or nobody "
                "was drawn for it"
            )
        aggregator = self._open[1]
        self._open = None
        for reply in replies:
            self._add(reply, aggregator)
        with silence():
            release = aggregator.release(self.ledger, server_round)
        self._noised = len(self.ledger.events)
        self.private |= {"silent": len(self._waiting), "diagnostics": release.private}
        following = {
            # A grid's mean comes in float64; rounding it is post-processing.
            name: before + release.mean[name].to(before.dtype)
            for name, before in self._model.items()
        }
        content = {
            self.strategy.arrayrecord_key: record_of(following),
            "metrics": MetricRecord({self.strategy.weighted_by_key: 1}),
        }
        # The one reply comes from nobody.
        only = Message(RecordDict(content), message_type=MessageType.TRAIN, dst_node_id=0)
        with silence():
            stepped, _ = self.strategy.aggregate_train(server_round, [only])
        if stepped is None:
            return None, None
        return record_of(kept(parameters(stepped), self._model)), None

    def _add(self, reply: Message, aggregator: PrivateAggregator) -> None:
        """Add a reply up, if it answers a message of this round and is the first that does."""
        node = reply.metadata.src_node_id
        message = self._waiting.get(node)
        late = message and reply.metadata.reply_to_message_id != message.metadata.message_id
        if message is None or late:
            self.private["strangers"] += 1
            return
        del self._waiting[node]
        if reply.has_error():
            self.private["failed"] += 1
            return
        weight = None
        if self._weights.cap is not None:
            weight = weight_in(reply.content, self.strategy.weighted_by_key)
        aggregator.add(update_in(reply.content, self._model), weight, node)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nobody: what clients find on their own records has no account."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing, whatever is given."""
        return None

    def summary(self) -> None:
        """What is promised, into Flower's log; `statement` says all of it."""
        _LOG.info(
            "Private(%s): ε at most %s at δ = %s over %d rounds of %d clients",
            type(self.strategy).__name__,
            up(self.plan.target_epsilon),
            up(self.plan.delta),
            self.plan.rounds,
            self.plan.clients,
        )
        if getattr(self.strategy, "fraction_evaluate", 0):
            _LOG.info("no client is asked to evaluate: its metrics would not be private")

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """As `Strategy.start`, with replies streamed, an account, and a checkpoint.

        Where ε is spent the run ends with the model so far.

        Parameters
        ----------
        grid : Grid
            Flower's.
        initial_arrays : ArrayRecord
            The model to begin with; a run that is resumed takes its checkpoint's instead.
        num_rounds : int, optional
            The rounds of the run, those before it was resumed included; None: the plan's.
        timeout : float
            Seconds after which a round is closed; who has not answered by then counts zero.
        train_config : ConfigRecord, optional
            Sent to the nodes.
        evaluate_config : ConfigRecord, optional
            Not used: nobody is asked to evaluate.
        evaluate_fn : function, optional
            From a round's number and its model to the server's own metrics, on records that are
            not the clients'.

        Returns
        -------
        Result
            The last model, and what `evaluate_fn` found.

        Raises
        ------
        ValueError
            For what does not go together, and for more nodes than clients.
        """
        self.summary()
        config = ConfigRecord() if train_config is None else train_config
        total = self.plan.rounds if num_rounds is None else whole("num_rounds", num_rounds, 0)
        timeout = between("timeout", timeout, math.inf)
        progress = self._progress(initial_arrays)
        result = Result()
        done, result.arrays = self._resume(progress, initial_arrays)
        if done == 0:
            # What cannot be saved is refused now.
            self._save(progress, done, result.arrays)
            _evaluate(evaluate_fn, done, result)
        while done < total:
            self._wait(grid)
            try:
                messages = self.configure_train(done + 1, result.arrays, config, grid)
            except PrivacyBudgetExhausted as end:
                _LOG.info("stopped after round %d: %s", done, end)
                break
            replies = exchange(grid, messages, timeout)
            stepped, _ = self.aggregate_train(done + 1, replies)
            if stepped is not None:
                result.arrays = stepped
            done += 1
            self._save(progress, done, result.arrays)
            _LOG.info("round %d of %d", done, total)
            _evaluate(evaluate_fn, done, result)
        _LOG.info("%s", self.statement)
        return result

    def _wait(self, grid: Grid) -> None:
        """Until enough nodes are connected; nothing is spent meanwhile."""
        while len(set(grid.get_node_ids())) < self.min_nodes:
            _LOG.info("waiting for %d nodes; nothing is spent", self.min_nodes)
            time.sleep(_GLANCE)

    def _progress(self, initial: ArrayRecord) -> Progress:
        """The run's file; the clip learns the model's structure first."""
        model = parameters(initial)
        self.clip.prepare(Layout(model))
        shapes = {name: list(value.shape) for name, value in model.items()}
        path = self._paths[1] if len(self._paths) > 1 else None
        return Progress(path, self.ledger, self._begun_with | {"model": described(shapes)})

    def _save(self, progress: Progress, done: int, arrays: ArrayRecord) -> None:
        if not progress.kept:
            return
        progress.save(
            {
                "done": done,
                "arrays": parameters(arrays),
                "strategy": optimiser_state(self.strategy),
                "clip": self.clip.state_dict(),
                "noise": self.noise.state_dict(),
            }
        )

    def _resume(self, progress: Progress, initial: ArrayRecord) -> tuple[int, ArrayRecord]:
        """How many rounds are done, and the model after them."""
        state = progress.load(self.noise.reproducible)
        if state is None:
            return 0, initial
        load_optimiser(self.strategy, state["strategy"])
        self.clip.load_state_dict(state["clip"])
        self.noise.load_state_dict(state["noise"])
        self._noised = len(self.ledger.events)
        return whole("the checkpoint's number of rounds", state["done"], 0), record_of(
            state["arrays"]
        )


def _evaluate(
    evaluate: Callable[[int, ArrayRecord], MetricRecord | None] | None, done: int, result: Result
) -> None:
    """What the server itself finds out about the model, on records that are not the clients'."""
    found = None if evaluate is None else evaluate(done, result.arrays)
    if found is not None:
        result.evaluate_metrics_serverapp[done] = found
