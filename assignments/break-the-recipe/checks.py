"""Checks of *Break the recipe*."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import betaincinv

from course import Call, Draw, Oracle, Part, check, hidden, number, table, tensor
from fldp.accounting import gaussian_epsilon

# The recipe's settings: ten clients, all of them in each of fifteen rounds.
CLIENTS = 10
ROUNDS = 15
DELTA = 1e-5
CLAIMED = 1.0
# A length computed in float32 is this far off.
ROUNDING = 1e-4
# Numbers of a small model.
SIZE = 12
# The verdicts may be wrong once in a million: so rare is a false alarm of the checks, too.
CONFIDENCE = 1 - 1e-6
RUNS = 4000

Box = Callable[[object, object, object], torch.Tensor]


def normals(draw: Draw, *shape: int) -> torch.Tensor:
    """Independent normal numbers, float64."""
    return draw.tensor(*shape, dtype=torch.float64)


def rotation(draw: Draw) -> torch.Tensor:
    """An orthogonal matrix (SIZE, SIZE)."""
    return torch.linalg.qr(normals(draw, SIZE, SIZE))[0]


def volunteers(draw: Draw, norm: float, turned: bool) -> torch.Tensor:
    """Updates (60, SIZE) of public clients, `norm` long; one direction is quiet, another loud."""
    spread = torch.full((SIZE,), 1.0, dtype=torch.float64)
    quiet, loud = draw.sample(range(SIZE), 2)
    spread[quiet], spread[loud] = 0.01, 3.0
    updates = normals(draw, 60, SIZE) * spread
    if turned:
        updates = updates @ rotation(draw)
    return norm * updates / updates.norm(dim=1, keepdim=True)


def spread_along(updates: torch.Tensor, canary: torch.Tensor) -> float:
    """How far the updates differ along the canary."""
    return float((updates @ (canary / canary.norm())).std())


@check("choose_canary", points=1)
def as_long_as_it_may_be(call: Call, draw: Draw) -> None:
    """A canary is as long as the clip allows, and points where nobody else moves: here, the third
    weight."""
    updates = normals(draw, 20, 4)
    updates[:, 2] = 0.0
    canary = tensor(call("choose_canary", updates, 2.0), shape=(4,)).double()
    length = float(canary.norm())
    assert abs(length - 2.0) <= 2.0 * ROUNDING, f"its length is {length:.4f}, and C is 2"
    assert abs(float(canary[2])) >= 2.0 * (1 - ROUNDING), f"it is {canary.tolist()}"


@hidden("choose_canary", points=1)
def a_quiet_weight(call: Call, draw: Draw) -> None:
    """No weight is dead here, but one is much quieter than the others; and C is another one."""
    for _ in range(3):
        norm = draw.uniform(0.2, 5.0)
        updates = volunteers(draw, norm, turned=False)
        canary = tensor(call("choose_canary", updates, norm), shape=(SIZE,)).double()
        assert abs(float(canary.norm()) - norm) <= norm * ROUNDING, "another length"
        least = float(updates.std(dim=0).min())
        assert spread_along(updates, canary) <= 1.5 * least, "others move there"


def drifting(draw: Draw) -> torch.Tensor:
    """Updates that all move alike along the direction in which they differ least."""
    updates = volunteers(draw, 1.0, turned=True)
    updates += draw.uniform(0.5, 1.0) * torch.linalg.eigh(updates.T.cov()).eigenvectors[:, 0]
    return updates / updates.norm(dim=1).max()


@hidden("choose_canary", points=1)
def a_quiet_direction(call: Call, draw: Draw) -> None:
    """Every weight moves, and still there is a direction, of several weights, in which nobody
    differs from the others; perhaps all of them move along it, by the same amount."""
    for turn in range(3):
        updates = drifting(draw) if turn == 1 else volunteers(draw, 1.0, turned=True)
        canary = tensor(call("choose_canary", updates, 1.0), shape=(SIZE,)).double()
        assert abs(float(canary.norm()) - 1) <= ROUNDING, "another length"
        least = float(torch.linalg.eigvalsh(updates.T.cov())[0].clamp(min=0).sqrt())
        assert spread_along(updates, canary) <= 1.5 * least, "others move there"


def finished(
    draw: Draw, canary: torch.Tensor, present: bool, runs: int, shift: float
) -> torch.Tensor:
    """Final models (runs, SIZE): a canary that is `shift` standard deviations long, drift, noise.

    Others drift along the canary, always by half its length, backwards; across it they vary a lot,
    in some runs far more than in others.
    """
    direction = canary / canary.norm()
    models = 5 * normals(draw, runs, 1).exp() * normals(draw, runs, SIZE)
    models -= (models @ direction)[:, None] * direction
    along = normals(draw, runs) + shift * (float(present) - 0.5)
    return models + along[:, None] * direction


def scored(call: Call, models: torch.Tensor, canary: torch.Tensor) -> torch.Tensor:
    """The student's scores, one for each run."""
    return tensor(call("score", models, canary), shape=(len(models),)).double()


@check("score", points=1)
def a_number_for_each_run(call: Call, draw: Draw) -> None:
    """One number for each run; a model that went along with the canary scores higher than one that
    stayed, and one that went the other way lower."""
    canary = torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64)
    models = torch.stack([0 * canary, canary, -canary, 2 * canary])
    stayed, went, back, far = scored(call, models, canary).tolist()
    told = f"the other way {back:g}, not at all {stayed:g}, along {went:g}, twice as far {far:g}"
    assert back < stayed < went < far, told


@hidden("score", points=2)
def in_a_crowd(call: Call, draw: Draw) -> None:
    """Far more happens across the canary than along it. Does your score look at what is across?"""
    shift, runs = 3.0, 4000
    for _ in range(2):
        canary = normals(draw, SIZE)
        canary *= draw.uniform(0.2, 4.0) / canary.norm()
        with_it = scored(call, finished(draw, canary, True, runs, shift), canary)
        without = scored(call, finished(draw, canary, False, runs, shift), canary)
        apart = float(with_it.mean() - without.mean())
        width = float(torch.stack([with_it.var(), without.var()]).mean().sqrt())
        assert width > 0, "all scores are equal"
        # The estimate is known to 0.04; 0.45 is eleven times that.
        assert apart >= 0.85 * shift * width, "the two worlds are further apart than your scores"


def clopper_pearson(errors: int, runs: int, level: float) -> float:
    """The upper limit of a rate, right with probability `level`."""
    return 1.0 if errors == runs else float(betaincinv(errors + 1, runs - errors, level))


def counted(
    false_alarms: int, absent: int, misses: int, present: int, delta: float, confidence: float
) -> float:
    """A valid bound: both limits at half the error."""
    level = 1 - (1 - confidence) / 2
    alarm = clopper_pearson(false_alarms, absent, level)
    miss = clopper_pearson(misses, present, level)
    ratios = [(1 - delta - miss) / alarm, (1 - delta - alarm) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


def bound_of(call: Call, *counts: float) -> float:
    """The student's bound; a bound below 0 says nothing and counts as 0."""
    return max(0.0, number(call("lower_bound", *counts)))


@check("lower_bound", points=1)
def no_errors_are_not_certainty(call: Call, draw: Draw) -> None:
    """A hundred runs without an error do not prove an infinite ε, and a coin proves nothing."""
    found = bound_of(call, 0, 100, 0, 100, 0.0, 0.95)
    assert 1.5 <= found <= 3.7, f"no error in 100 and 100 runs: you say ε ≥ {found:.2f}"
    coin = bound_of(call, 50, 100, 50, 100, 0.0, 0.95)
    assert coin == 0.0, f"half of all answers wrong in both worlds: you say ε ≥ {coin:.2f}"


# In so many audits a sound bound at 90 % errs 100 times on average, and above 150 once in 1e6.
AUDITS = 1000
MOST_ERRORS = 150


@hidden("lower_bound", points=1)
def mostly_below_the_truth(call: Call, draw: Draw) -> None:
    """Audit a program with a known ε a thousand times, at 90 % confidence: how often is your bound
    above the truth?"""
    chance = np.random.default_rng(draw.getrandbits(60))
    for rare in (False, True):
        epsilon = draw.uniform(1.0, 2.0)
        # Two rates on a line of ε, frequent ones and rare ones.
        alarm = draw.uniform(0.008, 0.02) if rare else 1 / (1 + math.exp(epsilon))
        miss = 1 - alarm * math.exp(epsilon)
        runs = draw.randint(150, 250)
        errors = zip(
            chance.binomial(runs, alarm, AUDITS), chance.binomial(runs, miss, AUDITS), strict=True
        )
        known: dict[tuple[int, int], float] = {}
        above = 0
        for a, b in errors:
            pair = int(a), int(b)
            if pair not in known:
                known[pair] = bound_of(call, pair[0], runs, pair[1], runs, 0.0, 0.9)
            above += known[pair] > epsilon
        assert above <= MOST_ERRORS, "the bound is above the truth too often"
        # Whoever never claims anything is never wrong, and has not answered. Hoeffding's
        # limits, which are wide, prove 2.19 here.
        assert bound_of(call, 0, runs, 0, runs, 0.0, 0.9) >= 2.05, "nothing is ever proved"


@hidden("lower_bound", points=1)
def not_too_weak(call: Call, draw: Draw) -> None:
    """Your bound holds, but proves too little: exact limits of a binomial rate prove more."""
    for _ in range(10):
        absent, present = draw.randint(200, 3000), draw.randint(200, 3000)
        counts = draw.randint(0, absent // 20), absent, draw.randint(0, present // 3), present
        confidence = draw.choice([0.9, 0.95, 0.99])
        want = counted(*counts, DELTA, confidence)
        # Two exact limits at half the error each are one way; others come within a few percent.
        found = bound_of(call, *counts, DELTA, confidence)
        assert found >= 0.93 * want, "weak"
        assert found <= 1.15 * want + 0.1, "too strong to be true"


@hidden("lower_bound", points=1)
def both_lines(call: Call, draw: Draw) -> None:
    """A guarantee is a pair of lines, and each of them may be the one that breaks; and a large δ
    takes something away."""
    for _ in range(4):
        runs = draw.randint(1000, 3000)
        many, few = runs * draw.randint(30, 45) // 100, draw.randint(0, 5)
        delta = draw.uniform(0.02, 0.1)
        want = counted(many, runs, few, runs, delta, 0.95)
        found = bound_of(call, many, runs, few, runs, delta, 0.95)
        assert 0.93 * want <= found, "one of the lines is missing"
        assert found <= 1.01 * bound_of(call, many, runs, few, runs, 0.0, 0.95), "δ adds nothing"
        large = bound_of(call, many, runs, few, runs, 0.3, 0.95)
        assert large <= 1.1 * counted(many, runs, few, runs, 0.3, 0.95), "δ is forgotten"


def audited(call: Call, present: np.ndarray, absent: np.ndarray, confidence: float) -> float:
    """The student's audit of scores; a bound below 0 says nothing and counts as 0."""
    found = call("audit", torch.from_numpy(present), torch.from_numpy(absent), DELTA, confidence)
    return max(0.0, number(found))


@check("audit", points=1)
def far_apart(call: Call, draw: Draw) -> None:
    """Scores that hardly overlap prove an ε of 3 or more, wherever they lie; equal ones nothing."""
    chance = np.random.default_rng(3)
    for middle in (0.0, -40.0):
        absent, present = (chance.normal(middle + s, 1.0, 1000) for s in (0.0, 6.0))
        found = audited(call, present, absent, 0.95)
        assert 3.0 <= found <= 8.0, f"scores around {middle:g}: you say ε ≥ {found:.2f}"
    same = audited(call, absent, absent.copy(), 0.95)
    assert same <= 0.5, f"the same scores in both worlds: you say ε ≥ {same:.2f}"


@hidden("audit", points=2)
def an_honest_threshold(call: Call, draw: Draw) -> None:
    """Audit Laplace noise of a known ε many times: a threshold that was chosen by the same scores
    on which it is counted flatters the attack."""
    chance = np.random.default_rng(draw.getrandbits(60))
    epsilon, runs, audits = draw.uniform(0.8, 1.2), 400, 200
    above = 0
    for _ in range(audits):
        absent = chance.laplace(0.0, 1.0, runs)
        present = chance.laplace(epsilon, 1.0, runs)
        # Luck shows best where little confidence is asked for.
        above += audited(call, present, absent, 0.5) > epsilon
    # A sound audit errs 100 times at most on average, and above 134 once in 1e6.
    assert above <= 134, "the bound is above the truth too often"
    # Whoever never claims anything is never wrong, and has not answered.
    middle = draw.uniform(-50, 50)
    absent, present = (chance.normal(middle + shift, 1.0, 1000) for shift in (0.0, 6.0))
    assert audited(call, present, absent, 0.95) >= 2.0, "nothing is ever proved"


@hidden("audit", points=1)
def worth_its_runs(call: Call, draw: Draw) -> None:
    """Your audit holds, but proves too little: the threshold has to go where errors are rare."""
    chance = np.random.default_rng(draw.getrandbits(60))
    for _ in range(4):
        middle, scale = draw.uniform(-50, 50), 10 ** draw.uniform(-2, 2)
        absent = middle + scale * chance.normal(0.0, 1.0, 4000)
        present = middle + scale * chance.normal(2.5, 1.0, 4000)
        # The best threshold proves about 4.0, half of the runs about 3.7; and 4000 runs without a
        # single error prove 7.0.
        assert 2.6 <= audited(call, present, absent, 0.95) <= 7.1, (
            "weak, or more than can be proved"
        )


def noisy_box(
    draw: Draw, updates: torch.Tensor, norm: float, z: float, runs: int
) -> tuple[Box, float]:
    """The recipe with noise multiplier z, and its true ε at DELTA (zero-out)."""

    def release(canary: torch.Tensor, present: bool, count: int) -> torch.Tensor:
        total = crowd(draw, updates, count)
        total += math.sqrt(ROUNDS) * z * norm * normals(draw, count, SIZE)
        return (total + ROUNDS * canary * float(present)) / CLIENTS

    return guarded(release, norm, runs), gaussian_epsilon(math.sqrt(ROUNDS) / z, DELTA)


def lying_box(
    draw: Draw, updates: torch.Tensor, norm: float, epsilon: float, runs: int
) -> tuple[Box, float]:
    """A client that is there is counted, or not, by a spinner: its ε is exact, at any δ."""
    truthful = 1 / (1 + math.exp(-epsilon))

    def release(canary: torch.Tensor, present: bool, count: int) -> torch.Tensor:
        lies = torch.tensor([draw.random() >= truthful for _ in range(count)])
        counts = (lies != present).double()
        total = crowd(draw, updates, count) + ROUNDS * counts[:, None] * canary
        return total / CLIENTS

    return guarded(release, norm, runs), epsilon


def crowd(draw: Draw, updates: torch.Tensor, count: int) -> torch.Tensor:
    """What nine other clients send: each is drawn anew in each run, and keeps to its update."""
    mean = updates.mean(dim=0)
    root = torch.linalg.cholesky(updates.T.cov() + 1e-12 * torch.eye(SIZE, dtype=torch.float64))
    others = CLIENTS - 1
    drawn = math.sqrt(others) * normals(draw, count, SIZE) @ root.T
    return ROUNDS * (others * mean + drawn)


def guarded(
    release: Callable[[torch.Tensor, bool, int], torch.Tensor], norm: float, runs: int
) -> Box:
    """A black box with a budget of runs; it clips, as the recipe does, and checks its arguments."""
    left = runs

    def box(canary: object, present: object, count: object) -> torch.Tensor:
        nonlocal left
        vector = tensor(canary, shape=(SIZE,)).double()
        assert isinstance(present, bool), "present is True or False"
        assert isinstance(count, int), "runs is a whole number"
        assert count >= 1, "at least one run"
        assert count <= left, f"{left} runs are left, and you ask for {count}"
        left -= count
        length = float(vector.norm())
        return release(vector * min(1.0, norm / max(length, 1e-12)), present, count)

    return box


def verdict(call: Call, box: Box, updates: torch.Tensor, norm: float) -> tuple[bool, float]:
    """The student's verdict on a black box, and the bound that it rests on."""
    asked = (updates, norm, CLAIMED, DELTA, 2 * RUNS, CONFIDENCE)
    found = table(call("convict", Oracle(box, calls=20), *asked), keys=("refuted", "bound"))
    assert isinstance(found["refuted"], bool), "refuted is True or False"
    return found["refuted"], number(found["bound"])


@check("convict", points=1)
def the_nine_lines(call: Call, draw: Draw) -> None:
    """The recipe itself, with z = 0.854, has ε = 28.9: it is to be refuted. With z = 14.45 it keeps
    its word."""
    updates = volunteers(draw, 0.5, turned=False)
    box, truth = noisy_box(draw, updates, 0.5, 0.854, 2 * RUNS)
    refuted, bound = verdict(call, box, updates, 0.5)
    assert refuted, f"the recipe: refuted is {refuted}, by ε ≥ {bound:.2f}"
    assert CLAIMED < bound <= truth, (
        f"the recipe: ε ≥ {bound:.2f} does not refute 1, or is too high"
    )
    box, _ = noisy_box(draw, updates, 0.5, 14.45, 2 * RUNS)
    refuted, bound = verdict(call, box, updates, 0.5)
    assert not refuted, f"a sound program: refuted is {refuted}, by ε ≥ {bound:.2f}"
    assert bound <= CLAIMED, f"a sound program: ε ≥ {bound:.2f}"


@hidden("convict", points=3)
def other_boxes(call: Call, draw: Draw) -> Part | None:
    """Either you convict a program that keeps its word, or a broken one gets away: which canary,
    which threshold, how sure?"""
    norm = draw.uniform(0.3, 2.0)
    updates = volunteers(draw, norm, turned=draw.random() < 0.5)
    cases = [(lying_box, CLAIMED)] * 5 + [(noisy_box, 14.45)]
    cases += [(noisy_box, draw.uniform(2.2, 3.0)), (noisy_box, draw.uniform(0.8, 1.5))]
    cases += [(lying_box, draw.uniform(2.0, 3.0))]
    draw.shuffle(cases)
    found = 0
    for make, setting in cases:
        box, truth = make(draw, updates, norm, setting, 2 * RUNS)
        refuted, bound = verdict(call, box, updates, norm)
        broken = truth > CLAIMED + 1e-2
        assert bound <= truth + 1e-2, "a bound is above the truth"
        assert broken or not refuted, "a sound program was convicted"
        assert refuted == (bound > CLAIMED), "the verdict does not follow from the bound"
        found += broken and refuted
    if found < 3:
        return Part(found / 6, "nobody was convicted wrongly, and a broken program got away")
    return None
