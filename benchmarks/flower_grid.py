"""A federation of Flower in memory: a grid whose nodes answer when their replies are pulled.

What nodes spend on their answers is counted apart, so that the server's own share can be told; so
is what the server spends on making messages of the bytes that nodes send.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

import fldp
from benchmarks import common

Answer = Callable[[int, Message], RecordDict]

# Who this process is: Flower makes no message without.
for name in ("run_id", "node_id", "task_id"):
    setattr(TaskIdentity, name, 1)


class Memory(Grid):
    """Nodes that all answer, each when its reply is asked for.

    Parameters
    ----------
    count : int
        How many nodes; they have the numbers from 0.
    answer : callable
        `answer(node, message)` is the content of a node's reply.
    packed : bool
        Whether replies come as bytes, as they do from a SuperLink. False: as objects.
    """

    run: Any = None

    def __init__(self, count: int, answer: Answer, *, packed: bool = False) -> None:
        self.count = count
        self.answer = answer
        self.packed = packed
        # Seconds of the processor: of the nodes, and of the server on their bytes.
        self.answering = 0.0
        self.unpacking = 0.0
        self._waiting: dict[str, Message] = {}
        self._sent = 0

    def set_run(self, run: Any) -> None:
        self.run = run

    def create_message(self, *given: Any, **named: Any) -> Message:
        raise NotImplementedError("messages are made by flwr.app.Message")

    def get_node_ids(self) -> list[int]:
        return list(range(self.count))

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node) for node in range(self.count)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            name = f"message {self._sent}"
            self._sent += 1
            message.metadata.__dict__["_message_id"] = name
            self._waiting[name] = message
            names.append(name)
        return names

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        return [self._reply(self._waiting.pop(name)) for name in names if name in self._waiting]

    def _reply(self, message: Message) -> Message:
        begun = time.process_time()
        node = message.metadata.dst_node_id
        reply = sent_by(node, self.answer(node, message), message)
        if not self.packed:
            self.answering += time.process_time() - begun
            return reply
        name = reply.object_id
        parts = {one: part.deflate() for one, part in get_all_nested_objects(reply).items()}
        # What the node keeps is not the server's memory.
        del reply
        sent = time.process_time()
        self.answering += sent - begun
        # As Flower's own grid makes messages of what it pulls.
        found = cast(Message, inflate_object_from_contents(name, parts))
        self.unpacking += time.process_time() - sent
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))


def sent_by(node: int, content: RecordDict, message: Message) -> Message:
    """A reply of `node` to `message`, as the SuperLink hands it over."""
    reply = Message(content, reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = node
    reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.message_id
    return reply


def record(**values: Any) -> ArrayRecord:
    """Arrays by name as Flower sends them."""
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in values.items()})


def reply_of(arrays: ArrayRecord, examples: float = 1.0, **metrics: float) -> RecordDict:
    """What a node sends after it has trained."""
    told = MetricRecord({"num-examples": examples, **metrics})
    return RecordDict({"arrays": arrays, "metrics": told})


def versions() -> dict[str, str]:
    """Of what a figure depends on."""
    return {
        "flwr": importlib.metadata.version("flwr"),
        "fldp": fldp.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, Any]:
    """As `common.machine`, with the processor's kind where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kinds = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {**common.machine(), "processor": kinds[0] if kinds else platform.processor()}
