"""Checks of *Clip and noise*."""

from __future__ import annotations

import math

import torch

from course import Call, Draw, Seed, check, hidden, near, number, tensor, tensors
from fldp.accounting import gaussian_epsilon, gaussian_mu

# A norm computed in float32 is this far off.
ROUNDING = 1e-5
# So many draws that a wrong standard deviation shows: theirs is known to 0.35 %.
MANY = 40_000
# Eight and a half standard deviations of it: no false alarm in 1e16.
SPREAD = 0.03
# Kolmogorov's distance of MANY normal draws is above it once in 5e6.
DISTANCE = 0.0145
# Two independent vectors of MANY draws correlate more than this once in 5e8.
CORRELATION = 0.03


def joint(parts: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))


@check("clip", points=0.5)
def the_norm_is_bounded(call: Call, draw: Draw) -> None:
    """What you return is longer than C. The norm is that of all tensors together."""
    update = [torch.full((3, 4), 2.0), torch.full((5,), -1.0)]
    norm = joint(tensors(call("clip", update, 1.0), like=update))
    assert norm <= 1 + ROUNDING, f"the joint norm is {norm:.4f} for C = 1"
    assert norm >= 1 - ROUNDING, f"the joint norm is {norm:.4f} for C = 1: you shorten too much"


@check("clip", points=0.5)
def a_short_update_stays(call: Call, draw: Draw) -> None:
    """An update that is shorter than C comes back as it was."""
    update = [torch.tensor([0.1, 0.2]), torch.tensor([[0.3]])]
    out = tensors(call("clip", update, 1.0), like=update)
    for part, sent in zip(out, update, strict=True):
        assert torch.allclose(part.double(), sent.double(), rtol=ROUNDING, atol=0.0)


def _is_clipped(call: Call, update: list[torch.Tensor], norm: float) -> None:
    out = tensors(call("clip", update, norm), like=update)
    length = joint(update)
    factor = min(1.0, norm / length) if length > 0 else 1.0
    for part, sent in zip(out, update, strict=True):
        tensor(part, dtype=sent.dtype)
        error = float((part.double() - sent.double() * factor).norm())
        assert error <= ROUNDING * min(norm, length), "not the update, scaled"
    for back, sent in zip(tensors(call.after[0], like=update), update, strict=True):
        assert torch.equal(back, sent), "the client's own tensors were changed"


@hidden("clip", points=0.5)
def any_update(call: Call, draw: Draw) -> None:
    """Try several layers, float32 beside float64, and lengths on both sides of C; then look at what
    you were given: is it still what it was?"""
    for scale in (1e-3, 1.0, 1e3):
        matrix = draw.tensor(draw.randint(2, 9), draw.randint(2, 5), scale=scale)
        vector = draw.tensor(draw.randint(1, 12), scale=3 * scale, dtype=torch.float64)
        _is_clipped(call, [matrix, vector], draw.uniform(0.3, 3.0))


@hidden("clip", points=0.5)
def extreme_updates(call: Call, draw: Draw) -> None:
    """Try an update of zeros, and one whose square a float32 cannot hold."""
    size = draw.randint(2, 9)
    _is_clipped(call, [torch.zeros(size), torch.zeros(1, size)], draw.uniform(0.3, 3.0))
    huge = draw.tensor(size, scale=10 ** draw.uniform(22, 28))
    _is_clipped(call, [huge, draw.tensor(3)], draw.uniform(0.3, 3.0))


@check("intake", points=0.5)
def everybody_has_a_place(call: Call, draw: Draw) -> None:
    """An update with NaN in it counts as zeros, and its place in the list stays."""
    updates = [torch.tensor([3.0, 4.0]), torch.tensor([math.nan, 0.1]), torch.tensor([0.0, 0.5])]
    wanted = [[0.6, 0.8], [0.0, 0.0], [0.0, 0.5]]
    out = tensors(call("intake", updates, 1.0), like=updates)
    for place, (part, want) in enumerate(zip(out, wanted, strict=True)):
        close = torch.allclose(part.double(), torch.tensor(want).double(), atol=ROUNDING)
        assert close, f"look at client {place}: {part.tolist()}"


@hidden("intake", points=0.5)
def all_that_is_not_finite(call: Call, draw: Draw) -> None:
    """Not only NaN, and not only at the first place; the other entries of such an update do not
    count either."""
    size = draw.randint(4, 30)
    norm = draw.uniform(0.3, 3.0)
    for bad in (math.nan, math.inf, -math.inf):
        updates = [draw.tensor(size, scale=draw.choice([0.01, 10.0])) for _ in range(4)]
        broken = draw.randrange(4)
        updates[broken][draw.randrange(size)] = bad
        out = tensors(call("intake", updates, norm), like=updates)
        for place, (part, sent) in enumerate(zip(out, updates, strict=True)):
            length = joint([sent])
            factor = 0.0 if place == broken else min(1.0, norm / length)
            wanted = torch.zeros(size) if place == broken else sent * factor
            assert float((part - wanted).norm()) <= ROUNDING * norm, f"client {place}"


@check("sensitivity", points=0.25)
def there_or_not(call: Call, draw: Draw) -> None:
    """A client who is there or not: how long is what it adds, at most, weight included?"""
    near(number(call("sensitivity", 1.5, 2.0, "add-or-remove")), 3.0)


@hidden("sensitivity", points=0.75)
def every_adjacency(call: Call, draw: Draw) -> None:
    """Draw the two sums for each meaning of "differ", the farthest apart that they can be."""
    for adjacency, times in (("add-or-remove", 1), ("zero-out", 1), ("replace-one", 2)):
        norm, cap = draw.uniform(0.1, 5.0), draw.uniform(0.1, 5.0)
        near(number(call("sensitivity", norm, cap, adjacency)), times * norm * cap)


@check("noisy_mean", points=0.5)
def the_mean_without_noise(call: Call, draw: Draw) -> None:
    """With z = 0 it is the sum of the clipped updates, divided by the expected cohort m."""
    updates = [torch.tensor([3.0, 4.0])] * 4
    out = tensor(call("noisy_mean", updates, 1.0, 0.0, 5, Seed(0)), shape=(2,))
    wanted = torch.tensor([0.48, 0.64], dtype=torch.float64)
    assert torch.allclose(out.double(), wanted, atol=ROUNDING), f"got {out.tolist()}"


@check("noisy_mean", points=0.5)
def the_generator_decides(call: Call, draw: Draw) -> None:
    """The same generator gives the same noise, another one other noise."""
    updates = [torch.zeros(50)] * 2
    one, same, other = (
        tensor(call("noisy_mean", updates, 1.0, 1.0, 2, Seed(seed)), shape=(50,))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same), "two calls with one seed differ"
    assert not torch.equal(one, other), "two seeds give the same noise"


def _noise(call: Call, draw: Draw, norm: float, z: float, m: int) -> torch.Tensor:
    """The noise of a release of zeros, in units of what it should be."""
    came = draw.randint(2, 4)
    out = call("noisy_mean", [torch.zeros(MANY)] * came, norm, z, m, draw.generator())
    return tensor(out, shape=(MANY,)).double() / (z * norm / m)


@hidden("noisy_mean", points=1)
def the_size_of_the_noise(call: Call, draw: Draw) -> None:
    """Measure the standard deviation of your mean for several C, z and m, with more and with fewer
    clients than m: what does it depend on?"""
    for _ in range(3):
        norm, z, m = draw.uniform(0.1, 3.0), draw.uniform(0.5, 4.0), draw.randint(7, 60)
        noise = _noise(call, draw, norm, z, m)
        assert abs(float(noise.square().mean().sqrt()) - 1) <= SPREAD, "the noise has another size"


@hidden("noisy_mean", points=0.5)
def the_law_of_the_noise(call: Call, draw: Draw) -> None:
    """Draw a histogram of the noise, and plot the noise of two releases against each other."""
    one, other = (_noise(call, draw, 1.0, 1.0, 10) for _ in range(2))
    normal = torch.special.ndtr(one.sort().values)
    steps = torch.arange(MANY + 1, dtype=torch.float64) / MANY
    distance = torch.maximum((normal - steps[:-1]).abs(), (normal - steps[1:]).abs()).max()
    assert float(distance) <= DISTANCE, "not a normal distribution"
    for first, second in ((one, other), (one[1:], one[:-1])):
        correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
        assert abs(correlation) <= CORRELATION, "the draws are not independent"


@hidden("noisy_mean", points=0.5)
def clipped_before_it_is_added(call: Call, draw: Draw) -> None:
    """One client that is a thousand times too long: how far does it move your mean?"""
    size, norm, m = draw.randint(3, 20), draw.uniform(0.3, 2.0), draw.randint(5, 40)
    updates = [
        draw.tensor(size, scale=10 ** draw.uniform(-2, 3)) for _ in range(draw.randint(3, 9))
    ]
    out = tensor(call("noisy_mean", updates, norm, 0.0, m, draw.generator()), shape=(size,))
    clipped = [update.double() * min(1.0, norm / joint([update])) for update in updates]
    wanted = torch.stack(clipped).sum(dim=0) / m
    assert float((out.double() - wanted).norm()) <= ROUNDING * len(updates) * norm / m


@check("calibrate", points=0.5)
def more_privacy_more_noise(call: Call, draw: Draw) -> None:
    """A smaller ε or a smaller δ needs more noise."""
    z = [number(call("calibrate", e, d)) for e, d in ((0.5, 1e-5), (1.0, 1e-5), (1.0, 1e-3))]
    shown = ", ".join(f"{one:.3f}" for one in z)
    asked = "(0.5, 1e-5), (1, 1e-5) and (1, 1e-3)"
    assert z[0] > z[1] > z[2] > 0, f"for (ε, δ) of {asked} you say {shown}"


def _is_smallest(call: Call, epsilon: float, delta: float) -> None:
    z = number(call("calibrate", epsilon, delta))
    smallest = 1 / gaussian_mu(epsilon, delta)
    # Two roundings of double precision are no privacy loss that anybody could show.
    assert z >= smallest * (1 - 1e-6), "less noise than it takes"
    assert z <= smallest * 1.001, "more noise than it takes"


@hidden("calibrate", points=0.75)
def exact_below_one(call: Call, draw: Draw) -> None:
    """Compare with the exact curve for ε below 1: what was made for a proof wastes noise."""
    for _ in range(3):
        _is_smallest(call, draw.uniform(0.1, 0.99), 10 ** draw.uniform(-7, -3))


@hidden("calibrate", points=0.75)
def exact_above_one(call: Call, draw: Draw) -> None:
    """Compare with the exact curve for ε above 1, up to 20: where does your formula come from, and
    what does its proof ask for?"""
    for low, high in ((1.5, 4.0), (4.0, 9.0), (9.0, 20.0)):
        _is_smallest(call, draw.uniform(low, high), 10 ** draw.uniform(-7, -3))


@check("claim", points=0.25)
def two_decimals(call: Call, draw: Draw) -> None:
    """A number with two decimals, larger where there is less noise."""
    claimed = [number(call("claim", z, 1e-5)) for z in (4.0, 2.0, 1.0)]
    for epsilon in claimed:
        assert abs(epsilon * 100 - round(epsilon * 100)) < 1e-6, f"{epsilon} has more decimals"
    shown = f"for z of 4, 2 and 1 at δ = 1e-5 you say {claimed}"
    assert claimed[0] < claimed[1] < claimed[2], shown


@hidden("claim", points=0.75)
def never_below_the_truth(call: Call, draw: Draw) -> None:
    """Compare with the exact ε for twenty values of z: how often is what you print smaller?"""
    for _ in range(20):
        z, delta = draw.uniform(0.4, 8.0), 10 ** draw.uniform(-7, -3)
        claimed, truth = number(call("claim", z, delta)), gaussian_epsilon(1 / z, delta)
        # A claim of two decimals is a double: its own rounding is allowed. What was rounded up may
        # be the safe end of a search.
        assert claimed >= truth - 1e-9, "smaller than the truth"
        assert claimed <= truth + 0.01 + 1e-3, "more than a hundredth above the truth"
