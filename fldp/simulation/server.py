"""Server optimisers: what is done with the noisy mean. All of it is post-processing.

A server optimiser sees releases only, never an update, so nothing here costs privacy and nothing
here may be moved before the noise. Momentum and the adaptive methods are those of Reddi et al.
2021; under noise the second moments are inflated, so `eps` is larger than without.

The rules are written out, a line or two each, and tests hold them against `torch.optim`. FedAvgM is
its SGD with momentum along the negative of the mean; but the first step of any `torch.optim` loads
torch's compiler, 800 modules in two seconds, which a training of two seconds should not wait for.
Its Adam is another rule: it corrects the bias of both moments, which the paper does not, and starts
the second at 0, where the paper has τ². Yogi it has not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fldp._checks import between, real
from fldp.simulation.checkpoint import State


@dataclass
class FedAvg:
    """Add the noisy mean to the model, `lr` times (McMahan et al. 2017).

    Parameters
    ----------
    lr : float
        The server's learning rate, above 0.
    cooldown : float
        Over this last share of the rounds the learning rate falls linearly towards 0; 0: never.
    average : float
        The model that is reported is the mean of the iterates over this last share of the rounds;
        0: the last iterate. Both are free, and noise makes both worth having.

    Raises
    ------
    ValueError
        For a setting out of range.

    Examples
    --------
    >>> FedAvg(lr=0.5).step(torch.zeros(2), torch.tensor([1.0, -2.0]))
    tensor([ 0.5000, -1.0000])
    """

    lr: float = 1.0
    cooldown: float = field(default=0.0, kw_only=True)
    average: float = field(default=0.0, kw_only=True)
    state: State = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        real("lr", self.lr)
        between("cooldown", self.cooldown)
        between("average", self.average)

    def direction(self, mean: Tensor) -> Tensor:
        """The step (d,) before the learning rate, from a release (d,).

        Parameters
        ----------
        mean : Tensor
            A release (d,).

        Returns
        -------
        Tensor
            (d,).
        """
        return mean

    def step(self, flat: Tensor, mean: Tensor, done: float = 0.0) -> Tensor:
        """The next model.

        Parameters
        ----------
        flat : Tensor
            The model vector (d,).
        mean : Tensor
            A release (d,).
        done : float
            The share of the rounds before this one.

        Returns
        -------
        Tensor
            The next model vector (d,).
        """
        rate = self.lr
        if self.cooldown and done > 1 - self.cooldown:
            rate *= (1 - done) / self.cooldown
        following = flat + rate * self.direction(mean)
        # The mean so far, without keeping the iterates.
        if self.average and done >= 1 - self.average:
            count = self.state.get("averaged", 0) + 1
            average = self.state.get("average", torch.zeros_like(following))
            self.state["average"] = average + (following - average) / count
            self.state["averaged"] = count
        return following

    def report(self, flat: Tensor) -> Tensor:
        """The vector to evaluate and to publish: the iterate, or the average once it has begun.

        Parameters
        ----------
        flat : Tensor
            The iterate (d,).

        Returns
        -------
        Tensor
            (d,).
        """
        average: Tensor = self.state.get("average", flat)
        return average

    def reset(self) -> None:
        """Forget momentum, moments and the average: a new run begins."""
        self.state.clear()

    def state_dict(self) -> State:
        """Momentum, moments and the average; a function of the releases."""
        return dict(self.state)

    def load_state_dict(self, state: State) -> None:
        """Resume after `state_dict`."""
        self.state = dict(state)


@dataclass
class FedAvgM(FedAvg):
    """Server momentum: the step is a decaying sum of noisy means (Hsu et al. 2019).

    Parameters
    ----------
    momentum : float
        The factor on the sum before a mean is added, in [0, 1).
    lr, cooldown, average : float
        As for `FedAvg`.

    Raises
    ------
    ValueError
        For a setting out of range.

    Examples
    --------
    >>> server, mean = FedAvgM(momentum=0.5), torch.tensor([1.0])
    >>> server.step(server.step(torch.zeros(1), mean), mean)
    tensor([2.5000])
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum!r}: give a number in [0, 1)")

    def direction(self, mean: Tensor) -> Tensor:
        """The decaying sum of this release and those before it."""
        # Not an average: with momentum β a steady mean makes steps 1/(1 - β) times as long.
        velocity = self.momentum * self.state.get("velocity", torch.zeros_like(mean)) + mean
        self.state["velocity"] = velocity
        return velocity


@dataclass
class FedAdam(FedAvg):
    """Adam on the noisy means (Reddi et al. 2021), without bias correction as in the paper.

    Parameters
    ----------
    lr : float
        The server's learning rate, above 0.
    betas : (float, float)
        The decay of the first and of the second moment, each in [0, 1).
    eps : float
        The paper's adaptivity τ, above 0: with noise, take it well above the noise on a
        coordinate's mean.
    cooldown, average : float
        As for `FedAvg`.

    Raises
    ------
    ValueError
        For a setting out of range.

    Examples
    --------
    >>> FedAdam(lr=1.0, eps=1.0).step(torch.zeros(1), torch.tensor([10.0]))
    tensor([0.4148])
    """

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas is {self.betas!r}: give two numbers in [0, 1)")
        real("eps", self.eps)

    def second(self, before: Tensor, square: Tensor) -> Tensor:
        """The second moment (d,) after a release whose entries have these squares.

        Parameters
        ----------
        before : Tensor
            The second moment so far (d,).
        square : Tensor
            The squares of a release's entries (d,).

        Returns
        -------
        Tensor
            (d,).
        """
        return self.betas[1] * before + (1 - self.betas[1]) * square

    def direction(self, mean: Tensor) -> Tensor:
        """The first moment over the root of the second, which starts at τ²."""
        before = self.state.get("first", torch.zeros_like(mean))
        first = self.betas[0] * before + (1 - self.betas[0]) * mean
        # The paper's v_{-1} >= τ²: a first release that is small by chance is no large step.
        start = torch.full_like(mean, self.eps**2)
        second = self.second(self.state.get("second", start), mean * mean)
        self.state["first"] = first
        self.state["second"] = second
        return first / (second.sqrt() + self.eps)


@dataclass
class FedYogi(FedAdam):
    """FedAdam whose second moment moves additively: slower to forget (Reddi et al. 2021).

    Parameters
    ----------
    lr, betas, eps, cooldown, average
        As for `FedAdam`.

    Examples
    --------
    >>> FedYogi(lr=1.0, eps=1.0).step(torch.zeros(1), torch.tensor([10.0]))
    tensor([0.4142])
    """

    def second(self, before: Tensor, square: Tensor) -> Tensor:
        """The second moment, moved towards the squares by at most their own share."""
        return before - (1 - self.betas[1]) * square * torch.sign(before - square)
