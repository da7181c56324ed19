"""SCAFFOLD: control variates against client drift, under one clip and one noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fldp import _moved
from fldp._checks import real
from fldp.simulation.checkpoint import State
from fldp.simulation.local import LocalSGD


@_moved.fields(mu="proximal")
@dataclass
class Scaffold(LocalSGD):
    """LocalSGD with control variates against client drift (Karimireddy et al. 2020, option II).

    A row of the update matrix is (Δw, s·Δc), width 2d: both vectors pass one joint clip and one
    noise, so the account is that of any other update. `absorb` takes the noisy mean apart: the
    first half is for the server optimiser, the second moves the server's control, on the server.
    Clients keep their own controls; they never leave, except through the clip.

    Parameters
    ----------
    control_scale : float, optional
        The public factor s that balances the halves. None: lr · epochs; with full batches they
        then start equally long. The noise stays in the server's control and adds up over t
        rounds, to √t · zC / (N·s): a larger s leaves less of it, and less of the clip to Δw.
    lr, epochs, batch_size, momentum, weight_decay, proximal, schedule, trainable, engine, threads
        As for `LocalSGD`; `momentum` must be 0.

    Raises
    ------
    ValueError
        For momentum, which the controls do not know.

    Examples
    --------
    >>> local = Scaffold(lr=0.5, epochs=2)
    >>> local.control_scale, local.width(650)
    (1.0, 1300)
    """

    remembers: ClassVar[bool] = True
    _corrects: ClassVar[bool] = True
    control_scale: float | None = None
    control: Tensor | None = field(default=None, init=False, repr=False)
    own: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum:
            raise ValueError("Scaffold's control needs plain steps: set momentum=0")
        if self.control_scale is None:
            self.control_scale = self.lr * self.epochs
        self.control_scale = real("control_scale", self.control_scale)

    def width(self, d: int) -> int:
        """Twice the parameters: a client sends Δw and s·Δc."""
        return 2 * d

    def absorb(self, mean: Tensor, rate: float = 1.0) -> Tensor:
        """Move the server's control by the second half of a release; see `Algorithm.absorb`.

        Parameters
        ----------
        mean : Tensor
            The noisy mean (2d,).
        rate : float
            m/N, the share of the clients' controls that moved.

        Returns
        -------
        Tensor
            The first half (d,).
        """
        step, control = mean.chunk(2)
        self.control = self._shared_control(control) + control * (rate / self._scale)
        return step

    @property
    def _scale(self) -> float:
        return float(self.control_scale or 1)

    def _shared_control(self, like: Tensor) -> Tensor:
        """The server's control (d,), zeros before the first release."""
        return torch.zeros_like(like) if self.control is None else self.control

    def _correction(self, flat: Tensor, ids: Tensor) -> Tensor | None:
        zero = torch.zeros_like(flat)
        shared = self._shared_control(flat)
        # Against the drift: away from where this client pulls, towards where all do.
        return shared - torch.stack([self.own.get(i, zero) for i in ids.tolist()])

    def _finish(self, moved: Tensor, sizes: Tensor, ids: Tensor, round: int) -> Tensor:
        steps = torch.ones_like(sizes)
        if self.batch_size is not None:
            steps = -(-sizes // self.batch_size)
        total = sum(self.rate(round, epoch) for epoch in range(self.epochs))
        # Option II: the new control is the mean gradient of the steps that were taken.
        change = moved / (steps.to(moved) * -total).unsqueeze(1)
        if self.control is not None:
            change -= self.control
        # A client whose training diverged keeps the control that it had.
        finite = torch.isfinite(change).all(dim=1).tolist()
        for i, row, usable in zip(ids.tolist(), change, finite, strict=True):
            if usable:
                self.own[i] = self.own[i] + row if i in self.own else row.clone()
        return torch.cat([moved, change.mul_(self._scale)], 1)

    def state_dict(self) -> State:
        """The server's control, and those that the clients keep: as private as their data."""
        return {"control": self.control, "own": dict(self.own)}

    def load_state_dict(self, state: State) -> None:
        """Resume with the controls of `state_dict`."""
        self.control = state["control"]
        self.own = dict(state["own"])
