"""simulation.server: the steps that the papers define, and state that survives a restart."""

from __future__ import annotations

import pytest
import torch

from fldp.simulation.server import FedAdam, FedAvg, FedAvgM, FedYogi


def walk(server: FedAvg, steps: int = 5) -> torch.Tensor:
    flat, generator = torch.zeros(3), torch.Generator().manual_seed(0)
    for t in range(steps):
        flat = server.step(flat, torch.randn(3, generator=generator), t / steps)
    return flat


def test_fedavg_with_rate_one_adds_the_mean() -> None:
    mean = torch.tensor([1.0, -2.0])
    assert torch.equal(FedAvg().step(torch.ones(2), mean), 1 + mean)


def test_momentum_is_a_decaying_sum() -> None:
    server, one = FedAvgM(lr=1.0, momentum=0.5), torch.ones(1)
    flat = torch.zeros(1)
    for expected in (1.0, 2.5, 4.25):
        flat = server.step(flat, one)
        assert float(flat) == pytest.approx(expected)


def test_adam_and_yogi_follow_their_recursions() -> None:
    mean = torch.tensor([0.3, -2.0])
    for cls, second in (
        (FedAdam, lambda v, g: 0.99 * v + 0.01 * g * g),
        (FedYogi, lambda v, g: v - 0.01 * g * g * torch.sign(v - g * g)),
    ):
        server = cls(lr=0.1, eps=0.01)
        m, v, flat, expected = torch.zeros(2), torch.full((2,), 1e-4), torch.zeros(2), None
        for _ in range(3):
            m, v = 0.9 * m + 0.1 * mean, second(v, mean)
            expected = flat + 0.1 * m / (v.sqrt() + 0.01)
            flat = server.step(flat, mean)
            torch.testing.assert_close(flat, expected)


def test_momentum_is_that_of_torch_along_the_negative_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    server = FedAvgM(lr=0.3, momentum=0.7)
    flat = torch.zeros(50)
    weights = torch.nn.Parameter(torch.zeros(50))
    theirs = torch.optim.SGD([weights], lr=0.3, momentum=0.7)
    for _ in range(20):
        mean = torch.randn(50, generator=generator)
        flat = server.step(flat, mean)
        weights.grad = -mean
        theirs.step()
        torch.testing.assert_close(flat, weights.detach())


@pytest.mark.parametrize("cls", [FedAvg, FedAvgM, FedAdam, FedYogi])
def test_a_restart_in_the_middle_changes_nothing(cls: type[FedAvg]) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(6, 3, generator=generator)
    whole, flat = cls(average=0.5), torch.zeros(3)
    first, second, resumed = cls(average=0.5), cls(average=0.5), torch.zeros(3)
    for t, mean in enumerate(means):
        flat = whole.step(flat, mean, t / 6)
        if t == 3:
            second.load_state_dict(first.state_dict())
        resumed = (first if t < 3 else second).step(resumed, mean, t / 6)
    assert torch.equal(flat, resumed)
    assert torch.equal(whole.report(flat), second.report(resumed))


def test_cooldown_shrinks_the_last_steps_to_zero() -> None:
    server, one = FedAvg(lr=1.0, cooldown=0.5), torch.ones(1)
    sizes = [float(server.step(torch.zeros(1), one, t / 10)) for t in range(11)]
    assert sizes[:6] == [1.0] * 6
    assert sizes[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_the_average_is_of_the_last_iterates() -> None:
    server, flat, iterates = FedAvg(average=0.5), torch.zeros(1), []
    for t in range(4):
        flat = server.step(flat, torch.ones(1), t / 4)
        iterates.append(float(flat))
    assert float(server.report(flat)) == pytest.approx(sum(iterates[2:]) / 2)
    assert float(FedAvg().report(flat)) == float(flat)


def test_a_new_run_starts_without_the_old_momentum() -> None:
    server = FedAvgM()
    first = walk(server)
    server.reset()
    assert torch.equal(walk(server), first)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FedAvg(lr=0.0), "lr is 0.0"),
        (lambda: FedAvg(cooldown=1.5), "cooldown is 1.5"),
        (lambda: FedAvgM(momentum=1.0), "momentum is 1.0"),
        (lambda: FedAdam(betas=(1.0, 0.9)), "betas is"),
        (lambda: FedYogi(eps=0.0), "eps is 0.0"),
    ],
)
def test_nonsense_is_refused_with_its_value(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
