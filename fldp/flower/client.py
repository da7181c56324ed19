"""Local trust: a device clips and noises its own update, and keeps its own account.

What of it can be trusted. The mod is part of the app that a run brings, so a device that runs
whatever it is sent trusts whoever may submit runs, and nothing is gained over central trust. Local
trust begins where the node's owner pins the code: a SuperNode started with ``--trusted-entities``
runs an app only if it is signed by somebody whom the owner named. The owner, too, puts plan and
ledger in place; a server that asks for more rounds than the plan has gets none.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Error, Message, MessageType, MetricRecord, RecordDict

from fldp.flower.arrays import parameters, record_of, update_in
from fldp.flower.deployment import absolute
from fldp.flower.replies import silence
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.clipping import Clip
from fldp.mechanism.intake import check_plan
from fldp.mechanism.noise import Gaussian, as_noise
from fldp.plan import PrivacyPlan
from fldp.plan.ledger import Ledger

Train = Callable[[Message, Context], Message]
# Flower leaves the codes of an app's own errors to the app.
_REFUSED = 1000


def local_dp(
    plan: PrivacyPlan,
    clip: float | Clip = 1.0,
    *,
    ledger: str | os.PathLike[str],
    noise: Gaussian | None = None,
) -> Callable[[Message, Context, Train], Message]:
    """A mod for `ClientApp(mods=[...])`: what leaves the device is clipped, noised, and accounted.

    Guarantee: each reply is the output of `plan.event` on this device's data, whatever the training
    did; training that fails sends noise as any other. The event is in the device's own ledger
    before the reply leaves, and beyond the plan's ε nothing is trained. Metrics and all other
    records of a reply are dropped, and only training is answered. The server averages with FedAvg
    itself, which is post-processing. Put this mod first: what stands before it sees a reply after
    the noise, what stands behind it sees it before.

    Parameters
    ----------
    plan : PrivacyPlan
        Of local trust.
    clip : float or Clip
        C, or a clip that asks no query.
    ledger : path
        Absolute, on the device; `{node}` in it is the node's number, for simulations that have
        several devices on one machine.
    noise : Gaussian, optional
        The device's noise, `Gaussian()` or `DiscreteGaussian()`, and never from a generator.

    Returns
    -------
    function

    Raises
    ------
    ValueError
        For a plan of another trust, a relative path, and noise from a generator.

    Examples
    --------
    >>> import fldp
    >>> budget = {"epsilon": 8.0, "delta": 1e-6}
    >>> plan = fldp.calibrate(**budget, rounds=10, clients=1000, trust="local")
    >>> mod = local_dp(plan, clip=1.0, ledger="/var/lib/fldp/ledger.jsonl")
    """
    check_plan(plan)
    if plan.trust != "local":
        raise ValueError(f"the plan's trust is {plan.trust!r}: calibrate with trust='local'")
    path = absolute("ledger", ledger)
    noise = as_noise(noise, None)
    if noise.reproducible:
        # A process for each message: a generator would begin anew in each.
        raise ValueError(
            "noise comes from a generator, and a device makes a new one with the same noise for "
            "each message, which whoever sees two of them subtracts: leave the generator out"
        )

    def mod(message: Message, context: Context, call_next: Train) -> Message:
        # An app may give its kinds of training names of their own: "train.first".
        if str(message.metadata.message_type).partition(".")[0] != MessageType.TRAIN:
            return _refused(message, "under local trust a device answers training alone")
        book = Ledger(str(path).replace("{node}", str(context.node_id)), plan)
        with book:
            if not plan.affords([*book.events, plan.event]):
                return _refused(message, f"this device has spent ε = {plan.target_epsilon:g}")
            if len(message.content.array_records) != 1:
                return _refused(message, "a message holds one model: one record of arrays")
            ((key, sent),) = message.content.array_records.items()
            model = parameters(sent)
            aggregator = PrivateAggregator(model, plan, clip, noise=noise, strict=False)
            # A copy: what the app writes on the message would go back with the reply.
            aggregator.add(_trained(copy.deepcopy(message), context, call_next, model))
            with silence():
                release = aggregator.release(book)
        # One device's own message: the sum of one.
        noisy = {
            name: before + (release.mean[name] * release.denominator).to(before.dtype)
            for name, before in model.items()
        }
        # Everybody counts once.
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({key: record_of(noisy), "metrics": metrics}), reply_to=message)

    return mod


def _trained(
    message: Message, context: Context, call_next: Train, model: dict[str, Any]
) -> dict[str, Any]:
    """The update of the device's own training; empty, which counts as zero, where it failed."""
    try:
        # An app that ends the process has failed as well.
        reply = call_next(message, context)
        return {} if reply.has_error() else update_in(reply.content, model)
    except (Exception, SystemExit):  # that it failed may depend on the data
        return {}


def _refused(message: Message, reason: str) -> Message:
    return Message(Error(_REFUSED, reason), reply_to=message)
