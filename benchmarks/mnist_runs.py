"""One run of the headline experiment: its settings, its models, what they see, and `fldp.train`.

`benchmarks.mnist_clients` makes the table of these runs, `benchmarks.mnist_tuning` chooses their
settings; both read and write `mnist_clients_settings.json` beside this file.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fldp
from benchmarks import scattering

SETTINGS = Path(__file__).parent / "mnist_clients_settings.json"
CACHE = Path(__file__).parent.parent / ".cache" / "mnist_clients"
# Clients, and the δ for so many; 600, 60 and 6 images each, no image twice.
DELTAS = {100: 1e-3, 1_000: 1e-5, 10_000: 1e-6}
PARTITIONS = ("shards", "iid")
BUDGETS = (8.0, 4.0, 2.0, 1.0, None)
LABELS = 10
TRAINING, OWNED, SPLIT_SEED = 60_000, 50_000, 0

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Cell:
    """A row of the table, but for what tuning chooses; `epsilon` None is without noise."""

    model: str
    clients: int
    partition: str
    epsilon: float | None

    @property
    def delta(self) -> float:
        return DELTAS[self.clients]


@dataclass(frozen=True)
class Setting:
    """Every hyper-parameter of a run.

    Attributes
    ----------
    rounds, share
        T, and the share q of the clients that a round expects: 1 is everyone, less is Poisson.
    clip
        C; None, without noise only, does not clip. Without noise a clip is a choice like others.
    local_steps, local_lr
        Full-batch steps of a client, and their rate. Of one step only the ratio of rate and C
        matters: where it is large, every update is clipped, and says where and not how far.
    server_lr, momentum, cooldown, average
        Of `fldp.FedAvgM`.
    """

    rounds: int
    share: float = 1.0
    clip: float | None = None
    local_steps: int = 1
    local_lr: float = 1.0
    server_lr: float = 1.0
    momentum: float = 0.0
    cooldown: float = 0.0
    average: float = 0.0

    def server(self) -> fldp.FedAvgM:
        return fldp.FedAvgM(
            self.server_lr, momentum=self.momentum, cooldown=self.cooldown, average=self.average
        )

    def plan(self, cell: Cell) -> fldp.PrivacyPlan | None:
        """What the run promises; None without noise."""
        if cell.epsilon is None:
            return None
        return fldp.calibrate(
            epsilon=cell.epsilon,
            delta=cell.delta,
            rounds=self.rounds,
            clients=cell.clients,
            cohort=None if self.share == 1 else self.share * cell.clients,
        )


def linear(width: int) -> nn.Module:
    """Ten rows without intercepts, from zero: what is seen holds a constant."""
    model = nn.Linear(width, LABELS, bias=False)
    nn.init.zeros_(model.weight)
    return model


def convolutional() -> nn.Module:
    """Two convolutions and a linear layer: 5,994 parameters, no normalisation.

    Of three that were tried on the held-out images, what got furthest in the same time.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, LABELS),
    )  # fmt: skip


def pixels(images: Tensor) -> Tensor:
    """Pixels minus pen strokes' mean, of unit norm, and a constant."""
    centred = images.flatten(1) - fldp.features.strokes(8000).flatten(1).mean(0)
    unit = nn.functional.normalize(centred)
    return torch.cat([unit, torch.full((len(unit), 1), 0.1)], 1)


def uncentred(images: Tensor) -> Tensor:
    """Oriented gradients as they come, and a constant."""
    found = fldp.features.oriented_gradients(images)
    return torch.cat([found, torch.full((len(found), 1), 0.1)], 1)


def centred(images: Tensor) -> Tensor:
    """Oriented gradients minus those of pen strokes on average, turned and not whitened."""
    strokes = fldp.features.oriented_gradients(fldp.features.strokes(8000))
    public = fldp.features.Whitening(strokes, directions=strokes.shape[1], power=0.0)
    return public(fldp.features.oriented_gradients(images))


WIDE, LIGHT, CENTRED, UNCENTRED = (
    "gradients and scattering",
    "gradients",
    "gradients, not whitened",
    "gradients as they come",
)
# Name -> what the model sees of images (n, 28, 28), and how many numbers a row of weights has.
INPUTS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    WIDE: (scattering.features, scattering.KEPT + 1),
    LIGHT: (fldp.features.public, 151),
    "CNN": (lambda images: images, 28),
    "pixels": (pixels, 785),
    CENTRED: (centred, 553),
    UNCENTRED: (uncentred, 553),
}


def start(name: str) -> nn.Module:
    """The start of a run: from zero, or first weights that torch draws."""
    return nn.Sequential(convolutional() if name == "CNN" else linear(INPUTS[name][1]))


def parameters(name: str) -> int:
    """How many numbers a model has."""
    return sum(weight.numel() for weight in start(name).parameters())


class Records:
    """MNIST as a model sees it; made once, and kept in a folder.

    Parameters
    ----------
    name
        Of the model.
    folder
        Where it is kept; delete it when the features change.
    """

    def __init__(self, name: str, folder: Path = CACHE) -> None:
        path = folder / f"{name.replace(',', '').replace(' ', '-')}.pt"
        if not path.exists():
            images = torch.cat([fldp.datasets.mnist(train=half)[0][:, 0] for half in (True, False)])
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(INPUTS[name][0](images), path)
        self.x = torch.load(path)
        self.y = torch.cat([fldp.datasets.mnist(train=half)[1] for half in (True, False)])

    def all(self) -> tuple[Data, Data]:
        """60,000 images for clients; the test images."""
        x, y = self.x, self.y
        return (x[:TRAINING], y[:TRAINING]), (x[TRAINING:], y[TRAINING:])

    def held_out(self) -> tuple[Data, Data]:
        """50,000 training images for clients and 10,000 to choose by: the same split always."""
        order = torch.randperm(TRAINING, generator=torch.Generator().manual_seed(SPLIT_SEED))
        own, rest = order[:OWNED], order[OWNED:]
        return (self.x[own], self.y[own]), (self.x[rest], self.y[rest])


def run(cell: Cell, setting: Setting, owned: Data, exam: Data, seed: int) -> dict[str, Any]:
    """Train once. The seed deals the images and the first weights.

    Cohorts and noise are the operating system's: nobody can take them off again.
    """
    people = fldp.clients.partition(*owned, cell.clients, cell.partition, seed=seed)
    plan = setting.plan(cell)
    torch.manual_seed(seed)
    options: dict[str, Any] = {}
    if plan is None:
        cohort = None if setting.share == 1 else setting.share * cell.clients
        options = {"rounds": setting.rounds, "cohort": cohort}
    begun = time.perf_counter()
    history = fldp.train(
        start(cell.model), people, plan, clip=setting.clip,
        local=fldp.LocalSGD(setting.local_lr, epochs=setting.local_steps, batch_size=None),
        server=setting.server(), **options,
    )  # fmt: skip
    return {
        "accuracy": fldp.simulation.evaluation.evaluate(history.model, *exam)[0],
        "epsilon": history.epsilon[-1] if plan else None,
        "seconds": time.perf_counter() - begun,
    }


# What tuning chose for a row, and what it found: validation, tried, seconds.
Settings = dict[Cell, tuple[Setting, dict[str, Any]]]


def load(path: Path = SETTINGS) -> Settings:
    """The settings that tuning chose, with what it found."""
    if not path.exists():
        return {}
    found = {}
    for row in json.loads(path.read_text(encoding="utf-8")):
        cell = Cell(**row["cell"])
        found[cell] = (Setting(**row["setting"]), row["tuning"])
    return found


def save(settings: Settings, path: Path = SETTINGS) -> None:
    """Keep what tuning chose, a line a cell."""
    rows = [
        {
            "cell": dataclasses.asdict(cell),
            "setting": dataclasses.asdict(setting),
            "tuning": tuning,
        }
        for cell, (setting, tuning) in settings.items()
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
