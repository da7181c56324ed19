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


class Call:
    """A call of `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`.

    Parameters
    ----------
    func : callable
        Which.
    args : tuple
        As torch's modules give them; packed sequences come with the number of records of each time
        step behind them.
    """

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        packed = int(isinstance(args[3], list | tuple))
        self.func = func
        self.data: Tensor = args[0]
        self.sizes: tuple[Tensor, ...] = args[1 : 1 + packed]
        hx, self.weights, self.biased, self.layers, self.p, self.train, self.two, *rest = args[
            1 + packed :
        ]
        self.state: tuple[Tensor, ...] = hx if isinstance(hx, tuple) else (hx,)
        # Whether records come before time steps; packed sequences have no such question.
        self.first: list[bool] = rest

    def layer(self, number: int) -> list[Tensor]:
        """The first states of a layer, and its parameters."""
        directions = 2 if self.two else 1
        own = slice(number * directions, (number + 1) * directions)
        each = len(self.weights) // self.layers
        parameters = self.weights[number * each : (number + 1) * each]
        return [*(part[own] for part in self.state), *parameters]

    def alone(self, data: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """One layer of one client, by torch.

        Parameters
        ----------
        data : Tensor
            What goes into the layer.
        parts : Tensor
            What `layer` gives.

        Returns
        -------
        tuple of Tensor
            The layer's outputs and last states.
        """
        count = len(self.state)
        state = parts[0] if count == 1 else parts[:count]
        own = list(parts[count:])
        settings = (self.biased, 1, 0.0, self.train, self.two, *self.first)
        return self.func(data, *self.sizes, state, own, *settings)

    def together(self, data: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """One layer of all clients: as `alone`, with a leading dimension c everywhere."""
        count = len(self.state)
        state, own = parts[:count], parts[count:]
        if state[0][0, 0].numel() > _SMALL_STATE:
            rows = zip(*(part.unbind() for part in (data, *parts)), strict=True)
            found = [self.alone(*row) for row in rows]
            return tuple(torch.stack(each) for each in zip(*found, strict=True))
        each = len(own) // (2 if self.two else 1)
        directions = [own[start : start + each] for start in range(0, len(own), each)]
        x = data.transpose(1, 2) if self.first[0] else data
        out, *last = unrolled(self.func.__name__, x, state, directions)
        return out.transpose(1, 2) if self.first[0] else out, *last


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
        state = step(kind, given, moved, state)
        if projection is not None:
            state = (torch.bmm(state[0], projection), state[1])
        outputs.append(state[0])
    return torch.stack(outputs, 1), state


def step(kind: str, given: Tensor, moved: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of a cell behind its matrices.

    Parameters
    ----------
    kind : str
        "lstm", "gru", "rnn_tanh" or "rnn_relu".
    given, moved : Tensor
        (..., gates): the input's share, and the state's; `moved` is their sum but for "gru".
    state : tuple of Tensor
        The hidden state (..., width), and an LSTM's cells.

    Returns
    -------
    tuple of Tensor
        The next state.
    """
    return _CELLS[kind](given, moved, state)


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
