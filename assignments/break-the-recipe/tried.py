"""Answers to *Break the recipe* that were tried."""

# The functions of an answer see the notebook's own names.
import math

import numpy as np
import torch
from scipy.special import betaincinv, ndtri

from course import right, wrong


@wrong("choose_canary")
def choose_canary__random(others, clip_norm):
    """A random direction."""
    canary = torch.randn(others.shape[1], dtype=torch.float64)
    return clip_norm * canary / canary.norm()


@wrong("choose_canary")
def choose_canary__typical(others, clip_norm):
    """Along the mean of the others."""
    mean = others.mean(dim=0)
    return clip_norm * mean / mean.norm()


@wrong("choose_canary")
def choose_canary__one_weight(others, clip_norm):
    """The quietest single weight, though a combination is quieter."""
    canary = torch.zeros(others.shape[1], dtype=torch.float64)
    canary[others.std(dim=0).argmin()] = clip_norm
    return canary


@wrong("choose_canary")
def choose_canary__too_long(others, clip_norm):
    """Longer than C, in the hope that nobody clips."""
    return 100 * clip_norm * torch.linalg.eigh(torch.cov(others.T)).eigenvectors[:, 0]


@wrong("choose_canary")
def choose_canary__uncentred(others, clip_norm):
    """Where the others are short, though what they all share does no harm."""
    return clip_norm * torch.linalg.eigh(others.T @ others).eigenvectors[:, 0]


@right("choose_canary")
def choose_canary__svd(others, clip_norm):
    """By singular vectors, in numpy."""
    centred = others.numpy() - others.numpy().mean(axis=0)
    direction = np.linalg.svd(centred)[2][-1]
    return torch.from_numpy(clip_norm * direction)


@wrong("score")
def score__norm(models, canary):
    """The length of the model."""
    return models.norm(dim=1)


@wrong("score")
def score__largest(models, canary):
    """The largest entry in the canary's sign."""
    return (models * canary.sign()).max(dim=1).values


@wrong("score")
def score__cosine(models, canary):
    """The angle: what is across comes in through the length."""
    return torch.cosine_similarity(models, canary[None], dim=1)


@wrong("score")
def score__absolute(models, canary):
    """The size of the part along the canary, without its sign."""
    return (models @ canary).abs()


@right("score")
def score__loop(models, canary):
    """Run by run, on another scale."""
    scores = [7 * float(model @ canary) - 3 for model in models]
    return torch.tensor(scores, dtype=torch.float64)


@wrong("lower_bound")
def lower_bound__as_counted(false_alarms, absent, misses, present, delta, confidence):
    """The rates as they were counted, with half an error more."""
    alarm, miss = (false_alarms + 0.5) / absent, (misses + 0.5) / present
    ratios = [(1 - delta - miss) / alarm, (1 - delta - alarm) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


@wrong("lower_bound")
def lower_bound__normal(false_alarms, absent, misses, present, delta, confidence):
    """The normal approximation of both limits."""
    z = ndtri(1 - (1 - confidence) / 2)

    def limit(errors, runs):
        rate = errors / runs
        return rate + z * math.sqrt(rate * (1 - rate) / runs) + 1e-9

    alarm, miss = limit(false_alarms, absent), limit(misses, present)
    ratios = [(1 - delta - miss) / alarm, (1 - delta - alarm) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


@wrong("lower_bound")
def lower_bound__hoeffding(false_alarms, absent, misses, present, delta, confidence):
    """Hoeffding's inequality: valid, and weak for rare errors."""

    def limit(errors, runs):
        return errors / runs + math.sqrt(math.log(2 / (1 - confidence)) / (2 * runs))

    alarm, miss = limit(false_alarms, absent), limit(misses, present)
    ratios = [(1 - delta - miss) / alarm, (1 - delta - alarm) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


@wrong("lower_bound")
def lower_bound__one_line(false_alarms, absent, misses, present, delta, confidence):
    """Only the line of rare false alarms."""
    level = 1 - (1 - confidence) / 2
    alarm = betaincinv(false_alarms + 1, absent - false_alarms, level)
    miss = betaincinv(misses + 1, present - misses, level)
    left = 1 - delta - miss
    return max(0.0, math.log(left / alarm)) if left > 0 else 0.0


@wrong("lower_bound")
def lower_bound__no_delta(false_alarms, absent, misses, present, delta, confidence):
    """δ is forgotten."""
    level = 1 - (1 - confidence) / 2
    alarm = betaincinv(false_alarms + 1, absent - false_alarms, level)
    miss = betaincinv(misses + 1, present - misses, level)
    ratios = [(1 - miss) / alarm, (1 - alarm) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


@right("lower_bound")
def lower_bound__beta(false_alarms, absent, misses, present, delta, confidence):
    """Exact limits by the beta distribution of scipy, in numpy."""
    from scipy.stats import beta

    def limit(errors, runs):
        if errors == runs:
            return 1.0
        return beta.ppf((1 + confidence) / 2, errors + 1, runs - errors)

    alarm, miss = limit(false_alarms, absent), limit(misses, present)
    ratios = np.maximum([(1 - delta - miss) / alarm, (1 - delta - alarm) / miss], 1.0)
    return np.log(ratios).max()


@wrong("audit")
def audit__best_of_all(present, absent, delta, confidence):
    """The best threshold on the same scores."""
    cuts = torch.quantile(torch.cat([present, absent]), torch.linspace(0, 1, 101).double())
    bounds = [
        lower_bound(
            int((absent > cut).sum()),
            len(absent),
            int((present <= cut).sum()),
            len(present),
            delta,
            confidence,
        )
        for cut in cuts
    ]
    return max(bounds)


@wrong("audit")
def audit__at_zero(present, absent, delta, confidence):
    """A threshold of a half, wherever the scores lie."""
    counts = int((absent > 0.5).sum()), len(absent), int((present <= 0.5).sum()), len(present)
    return lower_bound(*counts, delta, confidence)


@wrong("audit")
def audit__middle(present, absent, delta, confidence):
    """The middle between the two means: honest, and where errors are frequent."""
    half = len(present) // 2
    cut = (present[:half].mean() + absent[:half].mean()) / 2
    counts = int((absent[half:] > cut).sum()), len(absent) - half
    more = int((present[half:] <= cut).sum()), len(present) - half
    return lower_bound(*counts, *more, delta, confidence)


@wrong("audit")
def audit__gaussian(present, absent, delta, confidence):
    """Presumes that the noise is Gaussian."""
    from fldp.accounting import gaussian_epsilon

    mu = float(present.mean() - absent.mean()) / float(absent.std())
    mu -= ndtri(confidence) * math.sqrt(2 / len(present))
    return gaussian_epsilon(mu, delta) if mu > 0 else 0.0


@right("audit")
def audit__package(present, absent, delta, confidence):
    """The package's own, which pays for the thresholds that it tries."""
    import fldp

    found = fldp.audit.from_scores(present, absent, delta=delta, confidence=confidence)
    return found.lower_bound


@right("audit")
def audit__few_and_paid(present, absent, delta, confidence):
    """Eight thresholds, chosen on a tenth of the runs, each at an eighth of the error."""
    tenth = len(absent) // 10
    cuts = torch.quantile(absent[:tenth], torch.linspace(0.5, 0.99, 8).double())
    strict = 1 - (1 - confidence) / 8
    rest_a, rest_p = absent[tenth:], present[tenth:]
    bounds = [
        lower_bound(
            int((rest_a > cut).sum()),
            len(rest_a),
            int((rest_p <= cut).sum()),
            len(rest_p),
            delta,
            strict,
        )
        for cut in cuts
    ]
    return max(bounds)


@wrong("convict")
def convict__as_counted(box, others, clip_norm, claimed, delta, runs, confidence):
    """Rates as counted, at the middle between the means."""
    canary = choose_canary(others, clip_norm)
    present = score(box(canary, True, runs // 2), canary)
    absent = score(box(canary, False, runs // 2), canary)
    cut = (present.mean() + absent.mean()) / 2
    alarm = (float((absent > cut).sum()) + 0.5) / len(absent)
    miss = (float((present <= cut).sum()) + 0.5) / len(present)
    bound = math.log(max((1 - miss) / alarm, (1 - alarm) / miss))
    return {"refuted": bound > claimed, "bound": bound}


@wrong("convict")
def convict__lax(box, others, clip_norm, claimed, delta, runs, confidence):
    """At 60 percent confidence, and the largest of five audits."""
    canary = choose_canary(others, clip_norm)
    bounds = []
    for _ in range(5):
        present = score(box(canary, True, runs // 10), canary)
        absent = score(box(canary, False, runs // 10), canary)
        bounds.append(audit(present, absent, delta, 0.6))
    return {"refuted": max(bounds) > claimed, "bound": max(bounds)}


@wrong("convict")
def convict__gaussian(box, others, clip_norm, claimed, delta, runs, confidence):
    """Presumes that the noise is Gaussian: the spinner is convicted."""
    from fldp.accounting import gaussian_epsilon

    canary = choose_canary(others, clip_norm)
    present = score(box(canary, True, runs // 2), canary)
    absent = score(box(canary, False, runs // 2), canary)
    mu = float(present.mean() - absent.mean()) / float(absent.std())
    mu -= ndtri(confidence) * math.sqrt(4 / runs)
    bound = gaussian_epsilon(mu, delta) if mu > 0 else 0.0
    return {"refuted": bound > claimed, "bound": bound}


@wrong("convict")
def convict__never(box, others, clip_norm, claimed, delta, runs, confidence):
    """Nobody is ever convicted."""
    return {"refuted": False, "bound": 0.0}


@wrong("convict")
def convict__loud_canary(box, others, clip_norm, claimed, delta, runs, confidence):
    """A canary in the crowd: the others drown it."""
    loud = torch.linalg.eigh(torch.cov(others.T)).eigenvectors[:, -1]
    canary = clip_norm * loud
    present = score(box(canary, True, runs // 2), canary)
    absent = score(box(canary, False, runs // 2), canary)
    bound = audit(present, absent, delta, confidence)
    return {"refuted": bound > claimed, "bound": bound}


@right("convict")
def convict__in_parts(box, others, clip_norm, claimed, delta, runs, confidence):
    """Asks in eight parts, and gives numbers of numpy."""
    canary = choose_canary(others, clip_norm)
    parts = {True: [], False: []}
    for _ in range(4):
        for there in parts:
            parts[there].append(score(box(canary, there, runs // 8), canary))
    bound = audit(torch.cat(parts[True]), torch.cat(parts[False]), delta, confidence)
    return {"refuted": bool(bound > claimed), "bound": np.float64(bound)}
