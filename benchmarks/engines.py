"""The engine that is chosen for a model, beside the loop over clients: what it gains.

    python -m benchmarks.engines [--clients 40] [--repeats 5] [--only LSTM]

A round is one epoch of every client over its own records, in batches. `plain` is the loop that a
user of torch writes first, `loop` is fldp's own. One process, one thread, interleaved, least times.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.local import LocalSGD

RATE, BATCH, RECORDS, CLASSES = 0.05, 10, 20, 10
VOCABULARY = 64


@dataclass(frozen=True)
class Family:
    """A kind of model, and records for it: real numbers of a shape, or words."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: bool = False
    sequence: bool = False

    def records(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, *self.shape, generator=generator)
        if self.words:
            x = torch.randint(0, VOCABULARY, (n, *self.shape), generator=generator)
        if self.sequence:
            return x, torch.randint(0, VOCABULARY, (n, *self.shape), generator=generator)
        return x, torch.randint(0, CLASSES, (n,), generator=generator)


class Own(nn.Sequential):
    """A class of its own: no stacked kernels."""


class Reader(nn.Module):
    """A recurrent layer over the words or measurements of a record, and a head on its last state."""

    def __init__(self, layer: type[nn.RNNBase], width: int = 32, **options: Any) -> None:
        super().__init__()
        self.layer = layer(8, width, batch_first=True, **options)
        out = options.get("proj_size") or width
        self.head = nn.Linear(out * (2 if options.get("bidirectional") else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Words(nn.Module):
    """An embedding and an LSTM: the next word at every place."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.layer = nn.LSTM(16, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(ids))[0])


class Attentive(nn.Module):
    """A transformer's encoder."""

    def __init__(self, dropout: float = 0.0, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.into = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.into(x)).mean(1))


class Heads(nn.Module):
    """One attention that also gives its weights."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.into = nn.Linear(8, 32)
        self.attention = nn.MultiheadAttention(32, 4, dropout, batch_first=True)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        return self.head(self.attention(h, h, h)[0].mean(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        parts = self.qkv(self.first(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(*parts.unbind(), dropout_p=p, is_causal=True)
        x = x + F.dropout(self.out(seen.transpose(1, 2).reshape(n, t, width)), p)
        return x + F.dropout(self.back(F.gelu(self.wide(self.second(x)))), p)


class GPT(nn.Module):
    """A small GPT whose head is its embedding."""

    def __init__(self, width: int = 32, layers: int = 2, dropout: float = 0.1, t: int = 16) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(t, width)
        self.blocks = nn.ModuleList(Block(width, 4, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class Residual(nn.Module):
    """A small residual network with group norms."""

    def __init__(self, channels: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.into = nn.Conv2d(1, channels, 3, padding=1)
        self.layers = nn.ModuleList(
            Own(
                nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(4, channels), nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(4, channels),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.into(x))
        for layer in self.layers:
            h = F.relu(h + layer(h))
        return self.head(h.mean((2, 3)))


class Adapted(nn.Module):
    """A frozen layer with a trained one of rank 4 beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(64, 128)
        self.base.requires_grad_(False)
        self.down, self.up = nn.Linear(64, 4, bias=False), nn.Linear(4, 128, bias=False)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.base(x) + self.up(self.down(x))))


def mlp(*more: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), *more, nn.Linear(64, 64), nn.ReLU(), *more,
        nn.Linear(64, CLASSES),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.1), nn.Conv2d(8, 16, 5),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, CLASSES),
    )  # fmt: skip


def wide(width: int) -> nn.Module:
    return Own(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))  # noqa: E501


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(8, 16, 3), nn.ReLU(), nn.Conv1d(16, 16, 3), nn.ReLU(), nn.Dropout(0.1),
        nn.Flatten(), nn.Linear(192, CLASSES),
    )  # fmt: skip


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, CLASSES))


STEPS = (16, 8)
FAMILIES: dict[str, Family] = {
    "linear": Family(lambda: nn.Linear(64, CLASSES), (64,)),
    "MLP": Family(mlp, (64,)),
    "MLP, dropout": Family(lambda: mlp(nn.Dropout(0.2)), (64,)),
    "MLP, alpha dropout": Family(lambda: mlp(nn.AlphaDropout(0.1)), (64,)),
    "MLP of an own class, dropout": Family(lambda: Own(mlp(nn.Dropout(0.2))), (64,)),
    "MLP 128": Family(lambda: wide(128), (64,)),
    "MLP 256": Family(lambda: wide(256), (64,)),
    "MLP 512": Family(lambda: wide(512), (64,)),
    "MLP, flatten first": Family(flat, (1, 28, 28)),
    "CNN, dropout": Family(cnn, (1, 28, 28)),
    "Conv1d": Family(conv1d, STEPS[::-1]),
    "ResNet, GroupNorm, 8x8": Family(Residual, (1, 8, 8)),
    "ResNet, GroupNorm, 28x28": Family(Residual, (1, 28, 28)),
    "LSTM": Family(lambda: Reader(nn.LSTM), STEPS),
    "LSTM 64": Family(lambda: Reader(nn.LSTM, 64), STEPS),
    "LSTM 128": Family(lambda: Reader(nn.LSTM, 128), STEPS),
    "LSTM, 2 layers, dropout": Family(
        lambda: Reader(nn.LSTM, num_layers=2, dropout=0.2), STEPS),
    "LSTM, bidirectional": Family(lambda: Reader(nn.LSTM, bidirectional=True), STEPS),
    "LSTM, projection": Family(lambda: Reader(nn.LSTM, proj_size=8), STEPS),
    "GRU": Family(lambda: Reader(nn.GRU), STEPS),
    "RNN": Family(lambda: Reader(nn.RNN), STEPS),
    "next word, LSTM": Family(Words, (16,), words=True, sequence=True),
    "attention, dropout": Family(Heads, STEPS),
    "transformer": Family(Attentive, STEPS),
    "transformer, dropout": Family(lambda: Attentive(0.1), STEPS),
    "transformer 64, dropout": Family(lambda: Attentive(0.1, 64), STEPS),
    "GPT, tied": Family(GPT, (16,), words=True, sequence=True),
    "GPT 64, tied": Family(lambda: GPT(64), (16,), words=True, sequence=True),
    "LoRA": Family(Adapted, (64,)),
}  # fmt: skip


def population(family: Family, clients: int) -> Population:
    x, y = family.records(clients * RECORDS)
    return Population(x, y, torch.arange(clients * RECORDS).view(clients, RECORDS))


def plain(model: nn.Module, people: Population) -> None:
    """The loop that a user of torch writes first."""
    own = copy.deepcopy(model)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    for i in range(len(people)):
        x, y = people.client(i)
        own.load_state_dict(start)
        trained = [p for p in own.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=RATE)
        for picked in torch.randperm(len(y)).split(BATCH):
            optimiser.zero_grad()
            out = own(x[picked])
            loss = F.cross_entropy(out.reshape(-1, out.shape[-1]), y[picked].reshape(-1))
            loss.backward()
            optimiser.step()


def round_of(model: nn.Module, people: Population, engine: str) -> Callable[[], None]:
    local = LocalSGD(lr=RATE, batch_size=BATCH, engine=engine)
    model = local.prepare(copy.deepcopy(model))
    vector = flatten(model)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        for _ in local.updates(model, vector, people, range(len(people)), generator):
            pass

    return run


def measure(family: Family, clients: int, repeats: int, engines: list[str]) -> dict[str, Any]:
    torch.manual_seed(0)
    model, people = family.make(), population(family, clients)
    rounds = {name: round_of(model, people, name) for name in engines}
    rounds["plain"] = lambda: plain(model, people)
    least = dict.fromkeys(rounds, float("inf"))
    for name, run in rounds.items():
        run()
    for _ in range(repeats):
        for name, run in rounds.items():
            start = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - start)
    local = LocalSGD(lr=RATE, batch_size=BATCH)
    prepared = local.prepare(copy.deepcopy(model))
    like = local.form(prepared, flatten(prepared), people)
    chosen = local._engine(prepared, flatten(prepared), like, people.targets, BATCH)
    return {"parameters": flatten(prepared).numel(), "chosen": str(chosen), "together": chosen.together, "seconds": least}  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--engines", default="auto,loop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, family in FAMILIES.items():
        if options.only not in name:
            continue
        found = measure(family, options.clients, options.repeats, options.engines.split(","))
        seconds = found["seconds"]
        told = "  ".join(f"{k} {v * 1e3:7.1f} ms" for k, v in seconds.items())
        print(f"{name:30s} d={found['parameters']:7d} {told}  loop/auto {seconds['loop'] / seconds['auto']:5.2f} plain/auto {seconds['plain'] / seconds['auto']:5.2f}  {found['chosen']} ({found['together']})", flush=True)  # noqa: E501


if __name__ == "__main__":
    main()
