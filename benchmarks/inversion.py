"""How much a reader of releases learns about one digit: the update itself, one sum, all sums."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import fldp
from benchmarks import common
from fldp import attacks
from fldp.mechanism.updates import shapes, views

ROUNDS, CLIENTS, COHORT = 60, 480, 120


def inversion(clients: int = 600, seed: int = 0) -> dict[str, float]:
    """Share of one-digit clients whose label is read, by readers of growing knowledge.

    Unprotected: the image is read from Δw and shown to a classifier of other clients. Then the
    sum of a cohort in which every other client sends zeros, under ε = 8: inverted like the update;
    read by a matched filter that knows the mean update of each label; all rounds added up by an
    outsider, whom ε = 8 covers; and only the rounds that the client took part in, by someone who
    knows which.
    """
    x, y = common.digits(seed)
    torch.manual_seed(seed)
    model = torch.nn.Linear(64, 10)
    sent = torch.stack(
        [attacks.simulate(model, x[i : i + 1], y[i : i + 1], 0.5, 3) for i in range(len(x))]
    ).detach()
    clipped = torch.stack([fldp.clip(row, 1.0)[0] for row in sent])
    reader = LogisticRegression(max_iter=500).fit(x[clients:].numpy(), y[clients:].numpy())
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=ROUNDS, clients=CLIENTS, cohort=COHORT)
    truth, rate = y[:clients], plan.sampling_rate

    def read(rows: Tensor) -> float:
        parts = views(rows, shapes(model))
        found = attacks.invert_linear(parts["weight"], parts["bias"])
        return found.read(
            lambda images: torch.from_numpy(reader.predict(images.clamp(0, 1).numpy())), truth
        )

    def share(labels: Tensor) -> float:
        return float((labels == truth).double().mean())

    rng = torch.Generator().manual_seed(seed)
    own = clipped[:clients]
    templates = torch.stack([clipped[clients:][y[clients:] == c].mean(0) for c in range(10)])
    noise = plan.noise_multiplier * torch.randn(clients, ROUNDS, own.shape[1], generator=rng)
    taken = torch.rand(clients, ROUNDS, generator=rng) < rate
    sums = taken[..., None] * own[:, None] + noise
    one = own + noise[:, 0]
    return {
        "unprotected": read(sent[:clients]),
        "epsilon 8, one release, inverted": read(one),
        "epsilon 8, one release, matched filter": share(
            attacks.matched_filter(one[:, None], templates)[0]
        ),
        "epsilon 8, all rounds, outsider": share(attacks.matched_filter(sums, rate * templates)[0]),
        "epsilon 8, known participations": share(attacks.matched_filter(sums, templates, taken)[0]),
    }
