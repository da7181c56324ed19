"""Recurrent layers of many clients at once, written out in plain operations: torch.func has none.

One product serves the inputs of all time steps, one a step the state of all clients, and one the
gradient of all of a layer's steps in the weights of its state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Entries of all clients' states of one time step and direction, up to which written-out steps beat
# torch's own layer on each client: beyond, its products are as fast alone (measured on a CPU).
_SMALL_STATE = 400

Cell = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


class _Gathered(torch.autograd.Function):
    """The gates' share that comes from the input; backward, also the slope in the state's weights.

    All steps' slopes in the gates are there at once when this one is asked: one product, where
    autograd would take one a step and add them up.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, states: list[Tensor]) -> Tensor:
        ctx.states = states
        return gates.view_as(gates)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        states = torch.stack(ctx.states, 1).flatten(1, 2)
        return slopes[0], torch.bmm(slopes[0].flatten(1, 2).mT, states), None


def unrolled(
    kind: str, x: Tensor, state: Sequence[Tensor], directions: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, ...]:
    """One recurrent layer of all clients, as torch computes it for each.

    Parameters
    ----------
    kind : str
        "lstm", "gru", "rnn_tanh" or "rnn_relu".
    x : Tensor
        Sequences (c, T, B, features).
    state : sequence of Tensor
        The first hidden state (c, D, B, width), and an LSTM's cells.
    directions : sequence
        For each of D directions, 1 or 2, its parameters (c, *shape) in torch's order.

    Returns
    -------
    tuple of Tensor
        Outputs (c, T, B, D * width), and the last states (c, D, B, width).
    """
    c, count = len(x), len(directions)
    # Directions are further clients: the second reads backwards.
    both = x if count == 1 else torch.cat([x, x.flip(1)])
    own = [torch.cat(parts) for parts in zip(*directions, strict=True)]
    begin = tuple(part.transpose(0, 1).flatten(0, 1) for part in state)
    outputs, last = _steps(kind, both, begin, own)
    ends = [part.unflatten(0, (count, c)).transpose(0, 1) for part in last]
    if count == 2:
        there, back = outputs.chunk(2)
        outputs = torch.cat([there, back.flip(1)], -1)
    return outputs, *ends


def _steps(
    kind: str, x: Tensor, state: tuple[Tensor, ...], own: list[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All time steps (c, T, B, width) of one direction, and the last state."""
    biased = len(own) >= len(("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    projection = own.pop().mT if len(own) % 2 else None
    into, across = own[0], own[1]
    shape = (*x.shape[:3], into.shape[1])
    gates = torch.bmm(x.flatten(1, 2), into.mT).view(shape)
    held = list[Tensor]()
    if kind == "gru":
        # The state's share enters the third gate as a factor: it is kept apart.
        apart = gates.new_zeros(shape)
        if biased:
            gates = gates + own[2][:, None, None]
            apart = apart + own[3][:, None, None]
        apart = _Gathered.apply(apart, across, held)
        parts = list(zip(gates.unbind(1), apart.unbind(1), strict=True))
    else:
        if biased:
            gates = gates + (own[2] + own[3])[:, None, None]
        gates = _Gathered.apply(gates, across, held)
        parts = [(part, part) for part in gates.unbind(1)]
    # Its gradient is `_Gathered`'s to give.
    recurrent = across.detach().mT
    outputs = []
    for given, onto in parts:
        held.append(state[0].detach())
        moved = torch.baddbmm(onto, state[0], recurrent)
        state = _CELLS[kind](given, moved, state)
        if projection is not None:
            state = (torch.bmm(state[0], projection), state[1])
        outputs.append(state[0])
    return torch.stack(outputs, 1), state


def _lstm(given: Tensor, moved: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    entry, kept, new, out = moved.chunk(4, -1)
    cell = kept.sigmoid() * state[1] + entry.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def _gru(given: Tensor, moved: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    width = state[0].shape[-1]
    # Reset and update gate side by side, then the proposal.
    reset, update = (given[..., : 2 * width] + moved[..., : 2 * width]).sigmoid().chunk(2, -1)
    new = torch.addcmul(given[..., 2 * width :], reset, moved[..., 2 * width :]).tanh()
    return (new + update * (state[0] - new),)


def _tanh(given: Tensor, moved: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (moved.tanh(),)


def _relu(given: Tensor, moved: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (moved.relu(),)


_CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}


def small(batch: int, width: int) -> bool:
    """Whether written-out steps are the faster ones.

    Parameters
    ----------
    batch, width : int
        Records in a step, and entries of a state.

    Returns
    -------
    bool
    """
    return batch * width <= _SMALL_STATE
