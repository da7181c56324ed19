"""A federation in memory: nodes that answer at once, and what they send."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

import fldp
from fldp.flower import Private

# Who this process is: a message cannot be made without.
for name in ("run_id", "node_id", "task_id"):
    setattr(TaskIdentity, name, 1)

SIZE = 50
Answer = Callable[[int, Message], "RecordDict | Error | None"]


class Nodes(Grid):
    """`answer(node, message)` is what a node sends: records, an error, or None for silence."""

    run: Any = None

    def __init__(self, ids: Iterable[int], answer: Answer, keys: dict[int, bytes] | None = None):
        self.ids = list(ids)
        self.answer = answer
        self.keys = keys or {}
        self.box: dict[str, Message] = {}
        self.sent = 0
        self.asked: list[list[int]] = []
        self.held = 0

    def set_run(self, run: Any) -> None:
        self.run = run

    def create_message(self, *given: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.ids)

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=one, public_key=self.keys.get(one, b"")) for one in self.ids]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            name = f"message {self.sent}"
            self.sent += 1
            names.append(name)
            message.metadata.__dict__["_message_id"] = name
            self.box[name] = message
        self.asked.append([self.box[name].metadata.dst_node_id for name in names])
        return names

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        replies = [self.reply(name) for name in list(names) if name in self.box]
        found = [reply for reply in replies if reply is not None]
        self.held = max(self.held, len(found))
        return found

    def reply(self, name: str) -> Message | None:
        message = self.box[name]
        content = self.answer(message.metadata.dst_node_id, message)
        if content is None:
            return None
        del self.box[name]
        return sent_by(message.metadata.dst_node_id, content, message)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(list(messages)))


def sent_by(node: int, content: RecordDict | Error, message: Message) -> Message:
    """A reply of `node`, as the SuperLink hands it over."""
    reply = Message(content, reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = node
    reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.message_id
    return reply


def record(values: Any, name: str = "w") -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(values))})


def content(update: Any, message: Message, examples: float = 1) -> RecordDict:
    """The reply of a node whose training moved the model by `update`."""
    before = message.content["arrays"]["w"].numpy()
    metrics = MetricRecord({"num-examples": examples, "loss": 1e9})
    moved = np.asarray(before + update, np.float32)
    return RecordDict({"arrays": record(moved), "metrics": metrics})


def ones(node: int, message: Message) -> RecordDict:
    """Nine in each coordinate: far beyond any C here."""
    return content(np.full(SIZE, 9.0), message)


def zeros(node: int, message: Message) -> RecordDict:
    return content(np.zeros(SIZE), message)


def start() -> ArrayRecord:
    return record(np.zeros(SIZE, np.float32))


def weights(arrays: ArrayRecord) -> np.ndarray:
    return arrays["w"].numpy()


def plan(clients: int = 40, cohort: float | None = 10, rounds: int = 5, **more: Any) -> Any:
    given = {"epsilon": 4.0, "delta": 1e-3} | more
    return fldp.calibrate(rounds=rounds, clients=clients, cohort=cohort, **given)


def quiet(clients: int = 40, rounds: int = 1, **more: Any) -> fldp.PrivacyPlan:
    """A plan with hardly any noise, that nobody should use: what is added up shows."""
    return plan_of(1e-6, clients, rounds, **more)


def plan_of(z: float, clients: int, rounds: int, **more: Any) -> fldp.PrivacyPlan:
    fields = {
        "noise_multiplier": z,
        "delta": 1e-5,
        "rounds": rounds,
        "clients": clients,
        "cohort": clients,
        "sampling": "none",
        "trust": "central",
        "adjacency": "add-or-remove",
        "accountant": "pld",
        "target_epsilon": 1e9,
    }
    return fldp.PrivacyPlan(**{**fields, **more})


def seeded(seed: int = 0) -> fldp.Gaussian:
    return fldp.Gaussian(torch.Generator().manual_seed(seed))


def private(folder: Path, of: fldp.PrivacyPlan, strategy: Any = None, **more: Any) -> Private:
    given = {"clip": 1.0, "ledger": folder / "ledger.jsonl"} | more
    return Private(strategy or FedAvg(fraction_evaluate=0.0), of, **given)


def spent(folder: Path) -> int:
    return len(fldp.Ledger.read(folder / "ledger.jsonl"))
