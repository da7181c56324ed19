"""Server optimisers: what is done with the noisy mean. All of it is post-processing.

A server optimiser sees releases only, never an update, so nothing here costs privacy and nothing
here may be moved before the noise. Momentum and the adaptive methods are those of Reddi et al.
2021; under noise the second moments are inflated, so ``eps`` is larger than without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class FedAvg:
    """Add the noisy mean to the model, ``lr`` times (McMahan et al. 2017).

    ``cooldown``: over this last share of the rounds the learning rate falls linearly towards 0.
    ``average``: the model that is reported is the mean of the iterates over this last share of the
    rounds. Both are free, and noise makes both worth having.

    >>> FedAvg(lr=0.5).step(torch.zeros(2), torch.tensor([1.0, -2.0]))
    tensor([ 0.5000, -1.0000])
    """

    lr: float = 1.0
    cooldown: float = field(default=0.0, kw_only=True)
    average: float = field(default=0.0, kw_only=True)
    state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr!r}: give a learning rate > 0")
        for name in ("cooldown", "average"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value!r}: give a share of the rounds in [0, 1]")

    def direction(self, mean: Tensor) -> Tensor:
        """The step before the learning rate; ``mean`` is a release of shape (d,)."""
        return mean

    def step(self, flat: Tensor, mean: Tensor, done: float = 0.0) -> Tensor:
        """The next model vector (d,); ``done`` is the share of the rounds before this one."""
        rate = self.lr
        if self.cooldown and done > 1 - self.cooldown:
            rate *= (1 - done) / self.cooldown
        following = flat + rate * self.direction(mean)
        if self.average and done >= 1 - self.average:
            count = self.state.get("averaged", 0) + 1
            average = self.state.get("average", torch.zeros_like(following))
            self.state["average"] = average + (following - average) / count
            self.state["averaged"] = count
        return following

    def report(self, flat: Tensor) -> Tensor:
        """The vector to evaluate and to publish: the iterate, or the average once it has begun."""
        average: Tensor = self.state.get("average", flat)
        return average

    def reset(self) -> None:
        """Forget momentum, moments and the average: a new run begins."""
        self.state.clear()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


@dataclass
class FedAvgM(FedAvg):
    """Server momentum: the step is a decaying sum of noisy means (Hsu et al. 2019)."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum!r}: give a number in [0, 1)")

    def direction(self, mean: Tensor) -> Tensor:
        velocity = self.momentum * self.state.get("velocity", torch.zeros_like(mean)) + mean
        self.state["velocity"] = velocity
        return velocity


@dataclass
class FedAdam(FedAvg):
    """Adam on the noisy means (Reddi et al. 2021), without bias correction as in the paper.

    ``eps`` is their adaptivity τ: with noise, take it well above the noise on a coordinate's mean.
    """

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas is {self.betas!r}: give two numbers in [0, 1)")
        if not self.eps > 0:
            raise ValueError(f"eps is {self.eps!r}: give a number > 0")

    def second(self, before: Tensor, square: Tensor) -> Tensor:
        return self.betas[1] * before + (1 - self.betas[1]) * square

    def direction(self, mean: Tensor) -> Tensor:
        zero = torch.zeros_like(mean)
        first = self.betas[0] * self.state.get("first", zero) + (1 - self.betas[0]) * mean
        start = torch.full_like(mean, self.eps**2)
        second = self.second(self.state.get("second", start), mean * mean)
        self.state["first"], self.state["second"] = first, second
        return first / (second.sqrt() + self.eps)


@dataclass
class FedYogi(FedAdam):
    """FedAdam whose second moment moves additively: slower to forget (Reddi et al. 2021)."""

    def second(self, before: Tensor, square: Tensor) -> Tensor:
        return before - (1 - self.betas[1]) * square * torch.sign(before - square)
