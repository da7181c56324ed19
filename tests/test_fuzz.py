"""Models, records and targets put together at random: trained as the loop trains them, or refused.

A refusal is a ValueError of fldp's own, in words, before a round is drawn.
"""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation.draws import Draws
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective

CLIENTS, RECORDS, WIDTH = 4, 12, 6


class Last(nn.Module):
    """The output of a layer that returns a tuple."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Returned(nn.Module):
    """Whatever people let a model return."""

    def __init__(self, inner: nn.Module, kind: str) -> None:
        super().__init__()
        self.inner = inner
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        out = self.inner(x)
        kinds = {"dict": {"logits": out}, "tuple": (out, x), "none": None, "number": 1.0}
        return kinds.get(self.kind, out)


LAYERS: list[Any] = [
    lambda: nn.Linear(WIDTH, WIDTH),
    lambda: nn.Linear(WIDTH, 3),
    lambda: nn.Linear(3, 3),
    lambda: nn.ReLU(inplace=True),
    lambda: nn.Dropout(0.3),
    lambda: nn.Flatten(),
    lambda: nn.LayerNorm(WIDTH),
    lambda: nn.GroupNorm(2, WIDTH),
    lambda: nn.GroupNorm(3, 3),
    lambda: nn.BatchNorm1d(WIDTH),
    lambda: nn.Embedding(5, WIDTH),
    lambda: nn.Conv1d(2, 3, 2),
    lambda: nn.AdaptiveAvgPool1d(2),
    lambda: nn.Conv2d(2, 3, 2),
    lambda: nn.MaxPool2d(2),
    lambda: Last(nn.LSTM(WIDTH, 3, batch_first=True)),
    lambda: nn.TransformerEncoderLayer(WIDTH, 2, 4, batch_first=True),
    lambda: nn.Identity(),
    lambda: nn.Softmax(-1),
    lambda: nn.LazyLinear(3),
    lambda: nn.Linear(WIDTH, 1).double(),
    lambda: nn.Linear(WIDTH, 2).to(torch.bfloat16),
    lambda: nn.Linear(WIDTH, 3).requires_grad_(False),
]
SHAPES: list[tuple[int, ...]] = [(WIDTH,), (2, WIDTH), (2, 4, 4), ()]
LOSSES: list[Any] = [
    None, F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits, nn.HuberLoss(),
    nn.CrossEntropyLoss(label_smoothing=0.1), nn.NLLLoss(),
    lambda out, y: (out.float().mean() - y.float().mean()).abs(), lambda out, y: out.sum(0),
]  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    chosen = draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4))
    kind = draw(st.sampled_from(["", "", "", "dict", "tuple", "none", "number"]))
    model = nn.Sequential(*[make() for make in chosen])
    return Returned(model, kind) if kind else model


@st.composite
def records(draw: st.DrawFn) -> Any:
    shape = (RECORDS, *draw(st.sampled_from(SHAPES)))
    dtypes = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8]
    values = torch.arange(np.prod(shape)).view(shape) % 3
    found = values.to(draw(st.sampled_from(dtypes)))
    structure = draw(st.sampled_from(["", "", "", "tuple", "dict", "numpy"]))
    wrapped = {"tuple": (found,), "dict": {"x": found}, "numpy": found.numpy()}
    return wrapped.get(structure, found)


@st.composite
def targets(draw: st.DrawFn) -> Any:
    shape = (RECORDS, *draw(st.sampled_from([(), (), (1,), (2,), (2, 4)])))
    values = torch.arange(np.prod(shape)).view(shape) % draw(st.sampled_from([2, 3, 7]))
    return values.to(draw(st.sampled_from([torch.int64, torch.float32, torch.bool, torch.int16])))


def is_ours(error: BaseException) -> bool:
    """Whether a ValueError was raised by a line of fldp."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and "/fldp/" in frames[-1].filename


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(models(), records(), targets(), st.sampled_from(LOSSES), st.booleans())
def test_whatever_is_put_together_trains_or_is_refused(
    model: nn.Module, x: Any, y: Tensor, loss: Any, validated: bool
) -> None:
    drawn: list[int] = []

    class Watched(LocalSGD):
        def updates(self, *args: Any, **options: Any) -> Any:
            drawn.append(1)
            return super().updates(*args, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            people = fldp.clients.partition(x, y, clients=CLIENTS, seed=0)
            plan = fldp.calibrate(epsilon=8, delta=1e-2, rounds=2, clients=CLIENTS, cohort=2)
            held = (x, y) if validated else None
            history = fldp.train(model, people, plan, loss=loss, local=Watched(), validation=held)
        except Exception as error:
            if drawn or not is_ours(error):
                raise
            return
    assert history.rounds == 2
    assert history.engine


@pytest.mark.slow
@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
@given(models(), records(), targets(), st.sampled_from(LOSSES[:6]), st.sampled_from([None, 2]))
def test_the_engine_that_is_chosen_trains_as_the_loop_does(
    model: nn.Module, x: Any, y: Tensor, loss: Any, batch: int | None
) -> None:
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            people = fldp.clients.partition(x, y, clients=CLIENTS, scheme="lognormal", seed=0)
            for engine in ("auto", "loop"):
                local = LocalSGD(lr=0.1, epochs=2, batch_size=batch, engine=engine)
                local.learn(Objective(loss))
                start = local.prepare(model)
                flat = flatten(start)
                flat = flat if flat.dtype == torch.float64 else flat.float()
                local.rehearse(start, flat, people)
                found = local.updates(start, flat, people, range(CLIENTS), Draws(0))
                rows.append(torch.cat(list(found)))
        except ValueError as error:
            if not is_ours(error):
                raise
            return
    assert torch.allclose(*rows, rtol=1e-3, atol=1e-4, equal_nan=True)
