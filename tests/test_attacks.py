"""Attacks: they read what is there, and stop reading when the release is private."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

import fldp
from fldp import attacks
from fldp.parameters import shapes, views

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = torch.tensor(data.data[order] / 16, dtype=torch.float32)
    return x, torch.tensor(data.target[order])


def single_updates(model: nn.Module, x: Tensor, y: Tensor, steps: int = 3) -> Tensor:
    rows = [attacks.simulate(model, x[i : i + 1], y[i : i + 1], 0.5, steps) for i in range(len(x))]
    return torch.stack(rows).detach()


def test_digits_are_read_without_protection_and_not_from_a_noised_sum(
    digits: tuple[Tensor, Tensor],
) -> None:
    x, y = digits
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    reader = LogisticRegression(max_iter=500).fit(x[800:], y[800:])

    def read(images: Tensor) -> Tensor:
        return torch.from_numpy(reader.predict(images.clamp(0, 1).numpy()))

    updates = single_updates(model, x[:600], y[:600])
    layout = shapes(model)
    clear = attacks.invert_linear(*(views(updates, layout)[k] for k in ("weight", "bias")))
    torch.testing.assert_close(clear.images, x[:600], atol=1e-3, rtol=0)
    assert clear.read(read, y[:600]) >= 0.9
    # The strongest reader of the sum: every other client of the cohort sent zeros.
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    rng = torch.Generator().manual_seed(1)
    sums = torch.stack([fldp.aggregate(u[None], plan, 1.0, generator=rng).mean for u in updates])
    noisy = attacks.invert_linear(*(views(sums, layout)[k] for k in ("weight", "bias")))
    assert abs(noisy.read(read, y[:600]) - 0.1) <= 0.05
    assert noisy.psnr(x[:600]).mean() < clear.psnr(x[:600]).mean() - 20
    assert clear.plot(x[:600]).shape == (2, 10)
