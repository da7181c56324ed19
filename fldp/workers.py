"""Where clients train in a simulation: torch threads, seeded random numbers, worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import torch
from torch import Generator, Tensor


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with `count` torch threads and restore the caller's setting; None leaves it alone.

    Small models lose by threads: on a busy machine two threads took 46 times as long as one.
    """
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def draw_seed(generator: Generator | None) -> int:
    """A seed for another generator."""
    return int(torch.randint(2**62, (), generator=generator))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global random numbers and restore them afterwards."""
    before = torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    # torch.manual_seed would store a traceback for every device that has not been used yet.
    torch.default_generator.manual_seed(seed)
    if on_device is not None:
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


_JOB: Any = None  # in a worker process: the object whose `work` is called, and what it works on


def _start(*job: Any) -> None:
    global _JOB
    _JOB = job
    torch.set_num_threads(1)  # a forked process waits for ever for its parent's threads


def _work(task: list[Any]) -> Any:
    tensors = [torch.from_numpy(t) if hasattr(t, "dtype") else t for t in task]
    return _JOB[0].work(*_JOB[1:], *tensors).numpy()


class Workers:
    """`count` processes, one torch thread each, that call `worker.work(*about, *task)`.

    `worker` and `about` reach a process once, as they are when it starts, and without a copy where
    the system can fork; `key` names them. Tasks and results cross as numpy arrays, a few at a time,
    so that memory stays bounded. The processes end when this object does.
    """

    def __init__(self, count: int, key: Any, worker: Any, *about: Any) -> None:
        self.count, self.key, self.kept = count, key, about
        method = "fork" if "fork" in get_all_start_methods() else "spawn"
        self.pool = ProcessPoolExecutor(count, get_context(method), _start, (worker, *about))

    def run(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Tensor]:
        """Results in the order of the tasks."""
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            arrays = [t.numpy() if isinstance(t, Tensor) else t for t in task]
            waiting.append(self.pool.submit(_work, arrays))
            if len(waiting) > 2 * self.count:
                yield torch.from_numpy(waiting.popleft().result())
        while waiting:
            yield torch.from_numpy(waiting.popleft().result())
