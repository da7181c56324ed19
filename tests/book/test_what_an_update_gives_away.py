"""What the chapter says of attacks on noisy messages, with other draws of the noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fldp

# Clients that are attacked; the attacker knows the others.
ATTACKED = 480
DRAWS = range(100, 105)


@pytest.fixture(scope="module")
def messages() -> tuple[Tensor, Tensor]:
    """Clipped updates of clients with one image each, and their labels."""
    (x, y), _, _ = fldp.datasets.digits_split()
    torch.manual_seed(0)
    clients = fldp.clients.partition(x, y, len(y), seed=1)
    updates = fldp.LocalSGD(lr=0.5, epochs=5).updates_of(nn.Linear(64, 10), clients)
    labels = torch.cat([clients.client(k)[1] for k in range(len(y))])
    return torch.stack([fldp.clip(u, clip_norm=1.0)[0] for u in updates]), labels


def noisy(sent: Tensor, z: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sent + z * torch.randn(sent.shape, generator=generator)


def read(sent: Tensor) -> Tensor:
    return fldp.attacks.invert_linear(sent[:, :640].reshape(-1, 10, 64), sent[:, 640:]).images


def test_noise_that_stops_the_quotient_leaves_the_matched_filter(
    messages: tuple[Tensor, Tensor],
) -> None:
    sent, labels = messages
    truth, known = labels[:ATTACKED], labels[ATTACKED:]
    templates = torch.stack([sent[ATTACKED:][known == d].mean(0) for d in range(10)])
    means = torch.stack([read(sent[ATTACKED:])[known == d].mean(0) for d in range(10)])
    quotient, filtered = [], []
    for seed in DRAWS:
        seen = noisy(sent[:ATTACKED], 1.0, seed)
        nearest = torch.cdist(seen, templates).argmin(1)
        assert nearest.equal(fldp.attacks.matched_filter(seen[:, None], templates)[0])
        quotient.append(torch.cdist(read(seen), means).argmin(1) == truth)
        filtered.append(nearest == truth)
    assert torch.stack(quotient).double().mean() == pytest.approx(0.1, abs=0.03)
    assert torch.stack(filtered).double().mean() == pytest.approx(0.32, abs=0.04)


def test_between_two_messages_no_rule_is_right_more_often_than_the_text_says() -> None:
    sent = torch.zeros(20_000, 8)
    sent[:, 0] = torch.ones(20_000).index_fill(0, torch.arange(10_000), -1.0)
    seen = noisy(sent, 1.0, seed=0)
    # The likelihood ratio is a function of the first number alone.
    right = (seen[:, 0].sign() == sent[:, 0]).double().mean()
    assert float(right) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=0.01)
