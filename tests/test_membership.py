"""Membership scores: rates that the records can show, intervals that cover, words that fit."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from torch.nn import functional as F

import fldp
from fldp.audit import membership as m
from fldp.audit.attacks import simulate

matplotlib.use("Agg")


def overfit(x: Tensor, y: Tensor, seed: int, steps: int = 150) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Linear(x.shape[1], 2)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


@pytest.mark.slow
def test_membership_is_read_from_an_overfitted_model_and_better_with_shadow_runs() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(80, 40, generator=rng)
    y = (x[:, 0] + 2 * torch.randn(80, generator=rng) > 0).long()

    def run(mask: np.ndarray, seed: int) -> np.ndarray:
        keep = torch.from_numpy(mask)
        return -m.record_losses(overfit(x[keep], y[keep], seed), x, y)

    plain = m.membership(overfit(x[:40], y[:40], 0), (x[:40], y[:40]), (x[40:], y[40:]))
    assert plain.auc > 0.6
    assert 0 <= plain.tpr(0.1) <= 1
    assert len(plain.plot().get_lines()) == 2
    scores, inside = m.shadow_runs(run, 80, 24)
    truth = np.arange(80) < 40
    sharp = m.likelihood_ratio(run(truth, 99), scores, inside, truth)
    assert sharp.auc > plain.auc
    with pytest.raises(ValueError, match="run more"):
        m.likelihood_ratio(run(truth, 99), scores[:2], inside[:2], truth)


def test_membership_in_one_update_dies_with_the_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 200, generator=rng), torch.randint(0, 5, (40,), generator=rng)
    torch.manual_seed(0)
    model = nn.Linear(200, 5)
    members, others = (x[:10], y[:10]), (x[10:], y[10:])
    update = simulate(model, *members, 0.1, 3).detach()
    clear = m.update_membership(model, update, members, others)
    assert clear.auc > 0.95
    plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=20, clients=100)
    release = fldp.aggregate(update[None], plan, 1.0, generator=rng)
    noisy = m.update_membership(model, release, members, others)
    assert abs(noisy.auc - 0.5) < 0.25


def test_u12_label_skew_is_read_as_membership_and_said_so() -> None:
    # The client has two labels out of ten; its decoys have the same two and were never trained on.
    x, y = fldp.datasets.digits()
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    two = ((y == 3) | (y == 8)).nonzero().flatten()
    two = two[torch.randperm(len(two), generator=torch.Generator().manual_seed(0))]
    mine, decoys = (x[two[:10]], y[two[:10]]), (x[two[10:60]], y[two[10:60]])
    rest = torch.cat([(y != 3).logical_and(y != 8).nonzero().flatten()[:200], two[60:100]])
    others = (x[rest], y[rest])
    update = simulate(model, *mine, 0.1, 3).detach()
    skewed = m.update_membership(model, update, mine, others)
    decoy = m.update_membership(model, update, decoys, others)
    assert skewed.auc > 0.9
    assert decoy.auc > 0.8
    assert "label skew" in (m.update_membership.__doc__ or "")
    compared = m.update_membership(model, update, decoys, others, per_label=True)
    assert abs(compared.auc - 0.5) < 0.15
    with pytest.raises(ValueError, match="no other record has label"):
        m.update_membership(model, update, mine, (x[y == 1], y[y == 1]), per_label=True)


def test_u12_rates_that_the_records_cannot_show_are_refused() -> None:
    rng = np.random.default_rng(0)
    useless = m.Membership(rng.normal(size=100), rng.normal(size=100))
    for fpr in (0.001, 0.0, -0.1, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match=r"100 other records|fpr is"):
            useless.tpr(fpr)
    assert useless.tpr(1.0) == 1.0
    # At its smallest rate a useless attack reads about that rate: (k + 1)/(n + 1) on average.
    found = [m.Membership(rng.normal(size=100), rng.normal(size=100)).tpr(0.01) for _ in range(400)]
    assert np.mean(found) == pytest.approx(2 / 101, abs=0.004)


@pytest.mark.slow
@pytest.mark.parametrize(("members", "others"), [(30, 30), (100, 300)])
@pytest.mark.parametrize("mu", [0.0, 1.5, 3.0])
def test_u12_intervals_contain_the_truth(members: int, others: int, mu: float) -> None:
    # Nominal 5 % outside; AUROC's interval is an approximation, the other exact. False alarm 0.1 %.
    rng, repetitions = np.random.default_rng(0), 200
    auc, fpr = float(norm.cdf(mu / np.sqrt(2))), 0.1
    tpr = float(norm.sf(norm.isf(fpr) - mu))
    missed = [0, 0]
    for _ in range(repetitions):
        found = m.Membership(rng.normal(mu, 1, members), rng.normal(0, 1, others))
        for i, (truth, (low, high)) in enumerate(
            ((auc, found.auc_interval()), (tpr, found.tpr_interval(fpr)))
        ):
            assert low <= high
            missed[i] += not low <= truth <= high
    assert missed[0] <= binom.ppf(0.999, repetitions, 0.07)
    assert missed[1] <= binom.ppf(0.999, repetitions, 0.05)


def test_u12_a_statement_is_no_stronger_than_its_interval() -> None:
    rng = np.random.default_rng(0)
    coin = m.Membership(rng.normal(size=50), rng.normal(size=50)).statement()
    assert "not told apart from a coin, which is no proof of safety" in coin
    sharp = m.Membership(rng.normal(3, 1, 50), rng.normal(size=50)).statement(fpr=0.1)
    assert "better than a coin" in sharp
    assert "50 members and 50 others" in sharp
    turned = m.Membership(rng.normal(-3, 1, 50), rng.normal(size=50)).statement()
    assert "turn its scores round" in turned
    assert m.Membership(np.ones(9) + 1, np.ones(9)).auc_interval()[1] == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="equal"):
        m.Membership(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        m.Membership(np.ones(3), np.array([np.nan]))
    with pytest.raises(ValueError, match="records"):
        m.shadow_runs(lambda mask, seed: [0.0], 3, 4)
    with pytest.raises(ValueError, match="runs is 0"):
        m.shadow_runs(lambda mask, seed: [0.0], 3, 0)
    scores, bits = np.random.default_rng(0).normal(size=(8, 3)), np.arange(24).reshape(8, 3) % 2
    with pytest.raises(ValueError, match="0 and 1"):
        m.likelihood_ratio(scores[0], scores, 2 * bits - 1, bits[0])
    with pytest.raises(ValueError, match="floor"):
        m.likelihood_ratio(scores[0], scores, bits, bits[0], floor=0.0)
    with pytest.raises(ValueError, match="finite"):
        m.likelihood_ratio(scores[0] * np.nan, scores, bits, bits[0])
    with pytest.raises(ValueError, match="entries"):
        m.update_membership(
            nn.Linear(3, 2), torch.ones(7), (torch.ones(1, 3), torch.zeros(1).long()),
            (torch.ones(1, 3), torch.zeros(1).long()),
        )  # fmt: skip


@pytest.mark.parametrize("fpr", [None, "x", True, -0.1, 1.1, math.nan])
def test_u12_a_rate_that_is_none_gets_a_sentence(fpr: object) -> None:
    found = m.Membership(np.arange(1.0, 5.0), np.arange(4.0))
    for ask in (found.tpr, found.tpr_interval):
        with pytest.raises(ValueError, match="fpr is"):
            ask(fpr)  # type: ignore[arg-type]
