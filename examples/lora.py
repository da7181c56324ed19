"""Adapters under client-level privacy: a small transformer, and only its LoRA factors are trained.

A transformer reads the eight rows of a handwritten digit as eight words. It was trained in public;
the clients' digits are mirrored, which it cannot read. Low-rank adapters (Hu et al. 2022) beside
its frozen layers are all that clients train and send: an update has a fifth of the coordinates, and
noise of one scale on each coordinate adds up to less.

    python examples/lora.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fldp
from fldp.simulation.training import evaluate

WIDTH = 16
RANK = 2


class LoRA(nn.Module):
    """A frozen linear layer and the trained product of two thin ones, which begins as zero."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))


class Block(nn.Module):
    """Attention of every row to every row, then a small network on each."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.between = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        scores = self.query(h) @ self.key(h).transpose(-1, -2) / WIDTH**0.5
        x = x + scores.softmax(-1) @ self.value(h)
        return x + self.narrow(torch.relu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """From images (n, 64) to scores of the ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(8, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.view(-1, 8, 8)) + self.position
        return self.head(self.blocks(h).mean(1))


def adapted(model: nn.Module, rank: int) -> nn.Module:
    """`model` with everything frozen and an adapter beside each linear layer, in place."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(module, LoRA):
                setattr(module, name, LoRA(child, rank))
    return model


def pretrained(x: Tensor, y: Tensor, steps: int) -> Transformer:
    """A model that was trained on public records."""
    torch.manual_seed(0)
    model = Transformer()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


def main(rounds: int = 30, steps: int = 400) -> None:
    x, y = fldp.datasets.digits()
    mirrored = x.view(-1, 8, 8).flip(2).reshape(-1, 64)
    public, held, test = slice(0, 500), slice(500, 1500), slice(1500, None)
    model = pretrained(x[public], y[public], steps)
    before, _ = evaluate(model, mirrored[test], y[test])
    everything = sum(p.numel() for p in model.parameters())
    adapters = adapted(model, RANK)
    trained = sum(p.numel() for p in adapters.parameters() if p.requires_grad)

    people = fldp.clients.partition(mirrored[held], y[held], clients=500, seed=0)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=rounds, clients=500, cohort=250)
    history = fldp.train(
        adapters,
        people,
        plan,
        clip=0.5,
        local=fldp.LocalSGD(lr=0.1, epochs=3),
        server=fldp.FedAvgM(momentum=0.5),
        validation=(mirrored[test], y[test]),
    )
    print(f"trained and sent: {trained} of {everything} parameters")
    print(f"accuracy on mirrored digits: {before:.2f} before, {history.accuracy[-1]:.2f} after")
    print(history.statement.splitlines()[0])


if __name__ == "__main__":
    main()
