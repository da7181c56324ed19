"""Answers to *Train privately* that were tried."""

# The functions of an answer see the notebook's own names.
import math

import fldp
from course import right, wrong
from fldp.accounting import Event, epsilon_of


@wrong("noise_on_mean")
def noise_on_mean__everybody(epsilon, delta, rounds, clients, cohort):
    """No amplification: as if everybody came every round."""
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds)
    return z / cohort


@wrong("noise_on_mean")
def noise_on_mean__by_population(epsilon, delta, rounds, clients, cohort):
    """Divided by all clients."""
    rate = cohort / clients
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=rate)
    return z / clients


@wrong("noise_on_mean")
def noise_on_mean__root(epsilon, delta, rounds, clients, cohort):
    """Divided by the square root of the cohort."""
    rate = cohort / clients
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=rate)
    return z / math.sqrt(cohort)


@wrong("noise_on_mean")
def noise_on_mean__one_round(epsilon, delta, rounds, clients, cohort):
    """The budget of all rounds given to each of them."""
    rate = cohort / clients
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=1, sampling_rate=rate)
    return z / cohort


@right("noise_on_mean")
def noise_on_mean__plan(epsilon, delta, rounds, clients, cohort):
    """By a plan."""
    plan = fldp.calibrate(
        epsilon=epsilon, delta=delta, rounds=rounds, clients=clients, cohort=cohort
    )
    return plan.noise_multiplier / plan.denominator


@wrong("knee")
def knee__best(measured, slack):
    """The noise with the best mean, whatever the slack."""
    return max(measured, key=lambda row: sum(row[1]) / len(row[1]))[0]


@wrong("knee")
def knee__lucky(measured, slack):
    """By the best run of each."""
    best = max(max(runs) for _, runs in measured)
    return max(ratio for ratio, runs in measured if max(runs) >= best - slack)


@wrong("knee")
def knee__first_drop(measured, slack):
    """The last before the first that is too low, from little noise upward."""
    rows = sorted((ratio, sum(runs) / len(runs)) for ratio, runs in measured)
    chosen = rows[0][0]
    for ratio, mean in rows:
        if mean < rows[0][1] - slack:
            break
        chosen = ratio
    return chosen


@right("knee")
def knee__numpy(measured, slack):
    """With arrays."""
    import numpy as np

    ratios = np.array([ratio for ratio, _ in measured])
    means = np.array([np.mean(runs) for _, runs in measured])
    return ratios[means >= means.max() - slack].max()


@wrong("smallest_cohort")
def smallest_cohort__fixed_noise(epsilon, delta, rounds, clients, ratio):
    """The noise of a run with everybody, divided by the ratio."""
    z = fldp.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds)
    return math.ceil(z / ratio)


@wrong("smallest_cohort")
def smallest_cohort__halving(epsilon, delta, rounds, clients, ratio):
    """Doubles until it fits, and stops there."""
    if noise_on_mean(epsilon, delta, rounds, clients, clients) > ratio:
        return None
    cohort = 1
    while noise_on_mean(epsilon, delta, rounds, clients, min(cohort, clients)) > ratio:
        cohort *= 2
    return min(cohort, clients)


@wrong("smallest_cohort")
def smallest_cohort__everybody(epsilon, delta, rounds, clients, ratio):
    """If no cohort will do, everybody."""
    low, high = 0, clients
    while high - low > 1:
        middle = (low + high) // 2
        if noise_on_mean(epsilon, delta, rounds, clients, middle) <= ratio:
            high = middle
        else:
            low = middle
    return high


@right("smallest_cohort")
def smallest_cohort__package(epsilon, delta, rounds, clients, ratio):
    """The package's own."""
    try:
        return fldp.min_cohort(
            epsilon=epsilon, delta=delta, rounds=rounds, clients=clients, noise_on_mean=ratio
        )
    except ValueError:
        return None


@wrong("price_of_tuning")
def price_of_tuning__the_kept(tried, delta):
    """Only the run that was kept: the most expensive one."""
    private = [run for run in tried if not run["public"]]
    costs = [
        epsilon_of([Event(run["z"], run["q"], "poisson", rounds=run["rounds"])], delta)
        for run in private
    ]
    return max(costs, default=0.0)


@wrong("price_of_tuning")
def price_of_tuning__added(tried, delta):
    """ε's added up."""
    total = 0.0
    for run in tried:
        if not run["public"]:
            one = Event(run["z"], run["q"], "poisson", rounds=run["rounds"])
            total += run["runs"] * epsilon_of([one], delta)
    return total


@wrong("price_of_tuning")
def price_of_tuning__public_too(tried, delta):
    """Public runs are charged."""
    events = [
        Event(run["z"], run["q"], "poisson", rounds=run["rounds"] * run["runs"]) for run in tried
    ]
    return epsilon_of(events, delta)


@right("price_of_tuning")
def price_of_tuning__one_by_one(tried, delta):
    """An event for every run."""
    events = []
    for run in tried:
        if not run["public"]:
            one = Event(run["z"], run["q"], "poisson", rounds=run["rounds"])
            events += [one] * run["runs"]
    return epsilon_of(events, delta) if events else 0


@wrong("choices")
def choices__untuned(budget):
    """What one would take without noise."""
    return {
        "view": "pixels",
        "rounds": 100,
        "cohort": 20,
        "clip": 10.0,
        "local_rate": 0.5,
        "epochs": 5,
        "momentum": 0.9,
        "average": 0.0,
    }


@wrong("choices")
def choices__pixels_and_few(budget):
    """Pixels, ten rounds."""
    return {
        "view": "pixels",
        "rounds": 10,
        "cohort": 120,
        "clip": 1.0,
        "local_rate": 2.0,
        "epochs": 1,
        "momentum": 0.0,
        "average": 0.0,
    }


@wrong("choices")
def choices__own_privacy(budget):
    """Would like to say how much noise there is."""
    return {
        "view": "edges",
        "rounds": 40,
        "cohort": 240,
        "clip": 0.1,
        "local_rate": 1.0,
        "epochs": 1,
        "momentum": 0.5,
        "average": 0.25,
        "epsilon": 100.0,
        "noise_multiplier": 0.01,
        "seed": 0,
    }


@wrong("choices")
def choices__ready_made(budget):
    """Hands in a model instead of a view."""
    return {
        "view": [[0.0] * 10] * 64,
        "rounds": 1,
        "cohort": 1,
        "clip": 0.001,
        "local_rate": 1.0,
        "epochs": 1,
        "momentum": 0.0,
        "average": 0.0,
    }


@wrong("choices")
def server_rate__too_long(t, rounds):
    """Steps that grow: the noise grows with them."""
    return 1000.0


@wrong("choices")
def server_rate__infinite(t, rounds):
    """A rate that no plan has."""
    return math.inf


@right("choices")
def server_rate__falling(t, rounds):
    """Another schedule: it falls along a line."""
    return 80.0 * (1 - 0.75 * t / rounds)


@right("choices")
def choices__fewer_rounds(budget):
    """Thirty rounds with most of the people."""
    return {
        "view": "edges",
        "rounds": 30,
        "cohort": 400,
        "clip": 0.1,
        "local_rate": 1.0,
        "epochs": 1,
        "momentum": 0.5,
        "average": 0.5,
    }
