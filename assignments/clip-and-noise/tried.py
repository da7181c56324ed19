"""Answers tried for *Clip and noise*."""

# The functions of an answer see the notebook's own names.
import math

import torch

import fldp
from course import right, wrong


@wrong("clip")
def clip__per_tensor(update, norm):
    """Each tensor is clipped on its own."""
    return [part * min(1.0, norm / max(float(part.norm()), 1e-12)) for part in update]


@wrong("clip")
def clip__in_place(update, norm):
    """The client's own tensors are scaled."""
    total = math.sqrt(sum(float(part.double().square().sum()) for part in update))
    for part in update:
        part.mul_(min(1.0, norm / max(total, 1e-12)))
    return update


@wrong("clip")
def clip__single_precision(update, norm):
    """The square overflows in float32, and the update becomes zero."""
    total = torch.sqrt(sum(part.float().square().sum() for part in update))
    factor = torch.clamp(norm / (total + 1e-12), max=1.0)
    return [part * factor for part in update]


@wrong("clip")
def clip__always(update, norm):
    """Short updates are stretched to length C."""
    total = math.sqrt(sum(float(part.double().square().sum()) for part in update))
    return [part * (norm / max(total, 1e-12)) for part in update]


@wrong("clip")
def clip__coordinates(update, norm):
    """Each coordinate is clamped."""
    return [part.clamp(-norm, norm) for part in update]


@wrong("clip")
def clip__doubles(update, norm):
    """All tensors come back as float64, and zeros divide."""
    total = math.sqrt(sum(float(part.double().square().sum()) for part in update))
    return [part.double() * min(1.0, norm / total) for part in update]


@right("clip")
def clip__numpy(update, norm):
    """In numpy, as a tuple of arrays."""
    import numpy as np

    arrays = [part.numpy() for part in update]
    flat = np.concatenate([array.astype(np.float64).ravel() for array in arrays])
    total = np.sqrt(np.sum(flat**2))
    factor = np.minimum(1.0, norm / total) if total else 1.0
    return tuple((array * factor).astype(array.dtype) for array in arrays)


@right("clip")
def clip__slow(update, norm):
    """A loop over all numbers."""
    square = 0.0
    for part in update:
        for x in part.flatten().tolist():
            square += x * x
    factor = 1.0
    if square > norm * norm:
        factor = norm / square**0.5
    return [(part.double() * factor).type(part.dtype) for part in update]


@right("clip")
def clip__package(update, norm):
    """By the package's own clip."""
    return fldp.clip(update, norm)[0]


@wrong("intake")
def intake__repaired(updates, norm):
    """NaN entries become zero, and the rest stays."""
    return [clip([torch.nan_to_num(update)], norm)[0] for update in updates]


@wrong("intake")
def intake__dropped(updates, norm):
    """The list becomes shorter."""
    return [clip([u], norm)[0] for u in updates if bool(torch.isfinite(u).all())]


@wrong("intake")
def intake__only_nan(updates, norm):
    """Infinity is let through."""
    return [
        torch.zeros_like(u) if bool(torch.isnan(u).any()) else clip([u], norm)[0] for u in updates
    ]


@wrong("intake")
def intake__trusting(updates, norm):
    """Clipping is taken to be enough."""
    return [clip([update], norm)[0] for update in updates]


@right("intake")
def intake__where(updates, norm):
    """One matrix, without a loop."""
    rows = torch.stack(list(updates)).double()
    rows = torch.where(rows.isfinite().all(dim=1, keepdim=True), rows, 0.0)
    lengths = rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return list((rows * (norm / lengths).clamp_max(1.0)).float())


@wrong("sensitivity")
def sensitivity__norm(norm, cap, adjacency):
    """The weight is forgotten."""
    return 2 * norm if adjacency == "replace-one" else norm


@wrong("sensitivity")
def sensitivity__one(norm, cap, adjacency):
    """Replacing is taken for leaving."""
    return cap * norm


@wrong("sensitivity")
def sensitivity__double(norm, cap, adjacency):
    """Zeroing is taken for replacing."""
    return cap * norm * (1 if adjacency == "add-or-remove" else 2)


@wrong("sensitivity")
def sensitivity__root(norm, cap, adjacency):
    """Two vectors at a right angle, which is not the farthest."""
    return cap * norm * (math.sqrt(2) if adjacency == "replace-one" else 1)


@wrong("noisy_mean")
def noisy_mean__root(updates, norm, z, m, generator):
    """The standard deviation is divided by the square root of the cohort."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    return total / m + z * norm / math.sqrt(m) * torch.randn(total.shape, generator=generator)


@wrong("noisy_mean")
def noisy_mean__realised(updates, norm, z, m, generator):
    """Divided by how many came."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    noise = torch.randn(total.shape, generator=generator)
    return (total + z * norm * noise) / len(updates)


@wrong("noisy_mean")
def noisy_mean__without_norm(updates, norm, z, m, generator):
    """The noise does not know the clip norm."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    return (total + z * torch.randn(total.shape, generator=generator)) / m


@wrong("noisy_mean")
def noisy_mean__each(updates, norm, z, m, generator):
    """Every client's update gets the whole noise."""
    noisy = [
        u + z * norm * torch.randn(u.shape, generator=generator) for u in intake(updates, norm)
    ]
    return torch.stack(noisy).sum(dim=0) / m


@wrong("noisy_mean")
def noisy_mean__uniform(updates, norm, z, m, generator):
    """Uniform noise of the right variance."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    noise = (torch.rand(total.shape, generator=generator) - 0.5) * math.sqrt(12)
    return (total + z * norm * noise) / m


@wrong("noisy_mean")
def noisy_mean__one_draw(updates, norm, z, m, generator):
    """One draw for all coordinates."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    return (total + z * norm * torch.randn(1, generator=generator)) / m


@wrong("noisy_mean")
def noisy_mean__seeded(updates, norm, z, m, generator):
    """The same noise in every release."""
    total = torch.stack(intake(updates, norm)).sum(dim=0)
    noise = torch.randn(total.shape, generator=torch.Generator().manual_seed(0))
    return (total + z * norm * noise) / m


@wrong("noisy_mean")
def noisy_mean__mean_clipped(updates, norm, z, m, generator):
    """The mean is clipped, and no client is."""
    total = torch.stack(list(updates)).sum(dim=0)
    clipped = clip([total / m], norm)[0]
    return clipped + z * norm / m * torch.randn(total.shape, generator=generator)


@right("noisy_mean")
def noisy_mean__numpy(updates, norm, z, m, generator):
    """Noise by numpy, seeded from the generator."""
    import numpy as np

    random = np.random.default_rng(generator.initial_seed())
    total = sum(np.asarray(clip([u], norm)[0]) for u in updates)
    return (total + random.normal(0.0, z * norm, size=total.shape)) / m


@right("noisy_mean")
def noisy_mean__normal(updates, norm, z, m, generator):
    """Noise on the mean, by normal_."""
    mean = sum(clip([u], norm)[0] for u in updates) / m
    return mean + torch.empty_like(mean).normal_(0, z * norm / m, generator=generator)


@wrong("calibrate")
def calibrate__classical(epsilon, delta):
    """The classical formula."""
    return math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@wrong("calibrate")
def calibrate__classical_above_one(epsilon, delta):
    """Exact below 1, and the classical formula above."""
    if epsilon < 1:
        return 1 / fldp.accounting.gaussian_mu(epsilon, delta)
    return math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@wrong("calibrate")
def calibrate__concentrated(epsilon, delta):
    """By the conversion from concentrated DP, which is a bound."""
    rho = (math.sqrt(math.log(1 / delta) + epsilon) - math.sqrt(math.log(1 / delta))) ** 2
    return math.sqrt(1 / (2 * rho))


@wrong("calibrate")
def calibrate__replaced(epsilon, delta):
    """For a client who is replaced."""
    return 2 / fldp.accounting.gaussian_mu(epsilon, delta)


@right("calibrate")
def calibrate__search(epsilon, delta):
    """By halving an interval on the exact curve, written out."""

    def upper(x):
        return math.erfc(x / math.sqrt(2)) / 2

    def spent(z):
        far = upper(z * epsilon + 1 / (2 * z))
        return upper(z * epsilon - 1 / (2 * z)) - math.exp(epsilon) * far

    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        if spent(middle) > delta:
            low = middle
        else:
            high = middle
    return high


@right("calibrate")
def calibrate__package(epsilon, delta):
    """By the package's own solver."""
    return fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=1)


@wrong("claim")
def claim__rounded(z, delta):
    """Rounded to the nearest."""
    return round(fldp.accounting.gaussian_epsilon(1 / z, delta), 2)


@wrong("claim")
def claim__classical(z, delta):
    """The classical formula, turned round."""
    return math.ceil(math.sqrt(2 * math.log(1.25 / delta)) / z * 100) / 100


@wrong("claim")
def claim__cautious(z, delta):
    """Rounded up to the next tenth and more."""
    return math.ceil(fldp.accounting.gaussian_epsilon(1 / z, delta) * 10) / 10


@wrong("claim")
def claim__replaced(z, delta):
    """For a client who is replaced."""
    return math.ceil(fldp.accounting.gaussian_epsilon(2 / z, delta) * 100) / 100


@right("claim")
def claim__decimal(z, delta):
    """With decimal numbers."""
    from decimal import ROUND_CEILING, Decimal

    epsilon = fldp.accounting.gaussian_epsilon(1 / z, delta)
    return float(Decimal(epsilon).quantize(Decimal("0.01"), rounding=ROUND_CEILING))
