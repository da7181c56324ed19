"""The model, a device's records, and the server's own."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import fldp

PIXELS, DIGITS = 64, 10


def make_model() -> nn.Module:
    """Nothing in it but what is trained: a buffer would leave the devices unclipped."""
    return nn.Linear(PIXELS, DIGITS)


@cache
def dealt(devices: int) -> fldp.clients.Population:
    """1,440 digits, dealt out; kept, as one process of a simulation plays many devices."""
    (x, y), _, _ = fldp.datasets.digits_split()
    return fldp.clients.partition(x, y, clients=devices)


def records_of(device: int, devices: int) -> tuple[Tensor, Tensor]:
    """What lies on one device: yours reads its own disk."""
    return dealt(devices).client(device)


def train(model: nn.Module, x: Tensor, y: Tensor, lr: float) -> None:
    """One step on all records: as many as you like, the guarantee does not ask."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    nn.functional.cross_entropy(model(x), y).backward()
    optimiser.step()


def accuracy(model: nn.Module) -> float:
    """On 157 digits that are the server's own, and no device's."""
    _, (x, y), _ = fldp.datasets.digits_split()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()
