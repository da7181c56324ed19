"""SCAFFOLD: the paper's controls, and one clip for both halves of what a client sends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_local import collect, moved_by_one_client, orders, population
from torch import nn

from fldp.mechanism.updates import flatten, load_
from fldp.simulation.scaffold import Scaffold


def test_scaffold_follows_the_paper() -> None:
    torch.manual_seed(0)
    model, people = nn.Linear(8, 3), population((8,))
    algorithm = Scaffold(lr=0.1, epochs=2, batch_size=4, control_scale=0.5)
    d, ids = flatten(model).numel(), [0, 3, 1]
    own = {i: torch.zeros(d) for i in ids}
    server = torch.zeros(d)
    for turn in range(3):
        rows = collect(algorithm, model, people, ids, seed=turn)
        assert rows.shape == (3, algorithm.width(d))
        shuffles, start = orders(people, ids, 2, turn), flatten(model)
        expected = []
        for j, i in enumerate(ids):
            w, steps = start.clone(), 0
            x, y = people.client(i)
            for epoch in range(2):
                for picked in shuffles[j][epoch].split(4):
                    leaf = load_(nn.Linear(8, 3), w)
                    F.cross_entropy(leaf(x[picked]), y[picked]).backward()
                    gradient = torch.cat([p.grad.flatten() for p in leaf.parameters()])
                    w = w - 0.1 * (gradient + server - own[i])
                    steps += 1
            control = own[i] - server + (start - w) / (steps * 0.1)
            expected.append(torch.cat([w - start, 0.5 * (control - own[i])]))
            own[i] = control
        torch.testing.assert_close(rows, torch.stack(expected), atol=1e-5, rtol=1e-4)
        step = algorithm.absorb(rows.mean(0), rate=3 / 5)
        server = server + 3 / 5 * torch.stack(expected).mean(0)[d:] / 0.5
        load_(model, start + step)
        saved = algorithm.state_dict()
        algorithm = Scaffold(lr=0.1, epochs=2, batch_size=4, control_scale=0.5)
        algorithm.load_state_dict(saved)


def test_scaffold_halves_are_balanced_and_its_noise_adds_up_as_documented() -> None:
    torch.manual_seed(0)
    model, people = nn.Linear(8, 3), population((8,))
    algorithm = Scaffold(lr=0.1, epochs=5)
    step, control = collect(algorithm, model, people, range(5)).chunk(2, dim=1)
    torch.testing.assert_close(control, -step, atol=1e-6, rtol=1e-4)
    # The control after t rounds of pure noise of std σ on the mean: √t · σ · (m/N) / s.
    # 40,000 coordinates: a false alarm needs 14 standard deviations.
    quiet, generator = Scaffold(lr=0.1, control_scale=4.0), torch.Generator().manual_seed(0)
    for _ in range(25):
        quiet.absorb(0.5 * torch.randn(80_000, generator=generator), rate=0.25)
    assert quiet.control is not None
    assert float(quiet.control.std()) == pytest.approx(25**0.5 * 0.5 * 0.25 / 4, rel=0.05)


def test_local_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Scaffold(momentum=0.5)


def test_two_clips_under_one_account_are_found_out() -> None:
    torch.manual_seed(0)
    model, people = nn.Linear(8, 3), population((8,))
    rows = 100 * collect(Scaffold(lr=1.0, epochs=5), model, people, range(5))
    # A thousandth of C pays for the rounding of sums.
    assert moved_by_one_client(rows) == pytest.approx(1.0, rel=2e-3)
    assert moved_by_one_client(rows, halves=2) == pytest.approx(2**0.5, rel=2e-3)
