"""The accounting against the ground truth, its properties, and its refusals."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from conftest import ground_truth
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp import accounting
from fldp.accounting import Event

TRUTH = ground_truth()


def entries(group, accountant="", role=None):
    picked = [
        pytest.param(e, id=e["name"] + "-" + e["quantity"])
        for e in TRUTH
        if e["group"] == group and accountant in e["accountant"]
        if role is None or e.get("role") == role
    ]
    assert picked, group
    return picked


@pytest.mark.parametrize("entry", entries("poisson_subsampled_gaussian", role="REFERENCE"))
def test_poisson_reference_values(entry):
    p, value = entry["params"], entry["value"]
    found = accounting.epsilon(
        noise_multiplier=p["sigma"], delta=p["delta"], rounds=p["T"], sampling_rate=p["q"]
    )
    if value >= 0.01:
        assert value * (1 - 1e-6) <= found <= value * (1 + 1e-3)
    else:  # here the reference's own grid is coarse: it is too high
        assert 0.95 * value <= found <= value * (1 + 1e-2)


@pytest.mark.parametrize("entry", entries("gaussian_composed", role="REFERENCE"))
def test_composed_gaussian_is_exact(entry):
    p = entry["params"]
    found = accounting.epsilon(
        noise_multiplier=p["sigma"], delta=p["delta"], rounds=p["T"], sampling="none"
    )
    assert found == pytest.approx(entry["value"], rel=1e-8)


@pytest.mark.parametrize("entry", entries("gaussian_calibration", role="REFERENCE"))
def test_gaussian_calibration_is_exact(entry):
    p = entry["params"]
    z = accounting.noise_multiplier(epsilon=p["epsilon"], delta=p["delta"], rounds=1)
    assert z == pytest.approx(entry["value"], rel=1e-8)
    assert 1 / accounting.gaussian_mu(p["epsilon"], p["delta"]) == pytest.approx(z, rel=1e-9)


def analytic():
    return entries("gaussian_calibration", "AnalyticGM") + entries(
        "gaussian_calibration", "get_sigma_gaussian"
    )


@pytest.mark.parametrize("entry", analytic())
def test_gaussian_calibration_agrees_with_other_libraries(entry):
    p = entry["params"]
    z = accounting.noise_multiplier(epsilon=p["epsilon"], delta=p["delta"], rounds=1)
    assert z * p.get("clip", 1.0) == pytest.approx(entry["value"], rel=entry["tolerance_rel"])


@pytest.mark.parametrize("entry", entries("zcdp_conversion", "closed form", "REFERENCE"))
def test_gaussian_zcdp_conversion(entry):
    p = entry["params"]
    found = accounting.gaussian_epsilon(math.sqrt(2 * p["rho"]), p["delta"])
    assert found == pytest.approx(entry["value"], rel=1e-8)


@pytest.mark.parametrize("entry", entries("calibration", "PLDAccountant"))
def test_calibration_reference_values(entry):
    p = entry["params"]
    z = accounting.noise_multiplier(
        epsilon=p["epsilon"], delta=p["delta"], rounds=p["T"], sampling_rate=p["q"]
    )
    assert z == pytest.approx(entry["value"], rel=1e-3)


@pytest.mark.parametrize("entry", entries("sampling_scheme"))
def test_sampling_schemes(entry):
    p = entry["params"]
    run = {
        "noise_multiplier": p["sigma"],
        "delta": p["delta"],
        "rounds": p["T"],
        "sampling_rate": p["m"] / p["N"],
    }
    if "LOWER_BOUND" in entry["mechanism"]:
        found = accounting.epsilon(**run, sampling="fixed", adjacency="replace-one", clients=p["N"])
        assert (
            entry["value"]
            < found
            < 1.3 * accounting.epsilon(**{**run, "noise_multiplier": p["sigma"] / 2})
        )
        return
    adjacency = "replace-one" if "replace" in entry["mechanism"] else "add-or-remove"
    found = accounting.epsilon(**run, adjacency=adjacency)
    assert entry["value"] * (1 - 1e-6) <= found <= entry["value"] * (1 + 1e-3)


@pytest.mark.parametrize("entry", entries("truncated_poisson"))
def test_capped_poisson(entry):
    p = entry["params"]
    found = accounting.epsilon(
        noise_multiplier=p["sigma"],
        delta=p["delta"],
        rounds=p["T"],
        sampling_rate=p["q"],
        clients=p["N"],
        cap=p["cap"],
    )
    assert entry["value"] * (1 - 1e-6) <= found <= entry["value"] * (1 + 1e-3)


@pytest.mark.parametrize("entry", entries("semantics"))
def test_replace_one_doubles_the_sensitivity(entry):
    p = entry["params"]
    run = {"noise_multiplier": p["sigma"], "delta": p["delta"], "rounds": 1}
    for sampling in ("none", "poisson"):
        found = accounting.epsilon(**run, sampling=sampling, adjacency="replace-one")
        assert found == pytest.approx(entry["value"]["pld"], rel=1e-6)
    assert accounting.epsilon(
        **run, sampling="none", adjacency="replace-one", accountant="rdp"
    ) == pytest.approx(
        accounting.epsilon(
            noise_multiplier=p["sigma"] / 2, delta=p["delta"], rounds=1, accountant="rdp"
        )
    )


# ---- properties

SETTING = {
    "noise_multiplier": st.floats(0.4, 8),
    "delta": st.floats(-10, -3).map(lambda x: 10**x),
    "rounds": st.integers(1, 2000),
    "sampling_rate": st.floats(-3, -0.1).map(lambda x: 10**x),
}
few = settings(deadline=None, max_examples=12)
LOOSE = 1 + 1e-3


@few
@given(st.fixed_dictionaries(SETTING), st.sampled_from(["add-or-remove", "replace-one"]))
def test_epsilon_is_monotone_in_everything(run, adjacency):
    base = accounting.epsilon(**run, adjacency=adjacency)
    worse = {
        "noise_multiplier": run["noise_multiplier"] * 0.9,
        "delta": run["delta"] / 3,
        "rounds": 2 * run["rounds"],
        "sampling_rate": min(1.0, run["sampling_rate"] * 1.2),
    }
    for name, value in worse.items():
        assert accounting.epsilon(**{**run, name: value}, adjacency=adjacency) * LOOSE >= base
    if adjacency == "replace-one":
        assert base * LOOSE >= accounting.epsilon(**run)


@few
@given(
    st.floats(0.05, 50),
    st.floats(-10, -3).map(lambda x: 10**x),
    st.integers(1, 3000),
    st.floats(-3, 0).map(lambda x: 10**x),
)
def test_calibration_meets_its_budget_and_wastes_a_permille_at_most(epsilon, delta, rounds, q):
    run = {"delta": delta, "rounds": rounds, "sampling_rate": q}
    try:
        z = accounting.noise_multiplier(epsilon=epsilon, **run)
    except ValueError as error:
        assert "almost no noise" in str(error)  # noqa: PT017
        return
    assert 0.999 * epsilon <= accounting.epsilon(noise_multiplier=z, **run) <= epsilon


@few
@given(st.fixed_dictionaries(SETTING), st.integers(2, 5))
def test_composition_of_k_events_equals_one(run, k):
    delta = run.pop("delta")
    parts = [Event(**{**run, "sampling": "poisson"}) for _ in range(k)]
    whole = Event(**{**run, "rounds": k * run["rounds"], "sampling": "poisson"})
    assert accounting.epsilon_of(parts, delta) == accounting.epsilon_of([whole], delta)


@few
@given(st.fixed_dictionaries(SETTING))
def test_add_or_remove_equals_zero_out_under_poisson(run):
    assert accounting.epsilon(**run) == accounting.epsilon(**run, adjacency="zero-out")


@few
@given(st.fixed_dictionaries(SETTING))
def test_delta_inverts_epsilon(run):
    delta = run.pop("delta")
    epsilon = accounting.epsilon(**run, delta=delta)
    if epsilon > 0.01:
        assert accounting.delta(**run, epsilon=epsilon) == pytest.approx(delta, rel=0.05)


def test_different_rounds_lie_between_their_extremes_and_join_with_full_rounds():
    mild, strong = Event(2.0, 0.01, "poisson", 100), Event(0.8, 0.05, "poisson", 100)
    full = Event(20.0, rounds=3)
    low, mixed, high = (
        accounting.epsilon_of(run, 1e-6) for run in ([mild, mild], [mild, strong], [strong, strong])
    )
    assert low < mixed < high
    assert mixed < accounting.epsilon_of([mild, strong, full], 1e-6)
    assert accounting.epsilon_of([full, full], 1e-6) == pytest.approx(
        accounting.epsilon(noise_multiplier=20.0, rounds=6, delta=1e-6), rel=1e-12
    )
    assert accounting.epsilon_of([], 1e-6) == 0.0


def test_a_cap_that_never_binds_costs_nothing_and_a_low_one_costs_much():
    run = {"noise_multiplier": 1.0, "delta": 1e-4, "rounds": 100, "sampling_rate": 0.05}
    free = accounting.epsilon(**run)
    assert accounting.epsilon(**run, clients=400, cap=400) == free
    costs = [accounting.epsilon(**run, clients=400, cap=cap) for cap in (60, 30, 20)]
    assert free <= costs[0] * LOOSE
    assert costs[0] < costs[1] < costs[2]


def test_fixed_cohort_of_everyone_is_no_sampling():
    run = {"noise_multiplier": 5.0, "delta": 1e-5, "rounds": 10, "adjacency": "replace-one"}
    assert accounting.epsilon(**run, sampling="fixed", clients=50) == accounting.epsilon(
        **run, sampling="none"
    )


def test_max_rounds_is_the_last_that_fits():
    run = {"noise_multiplier": 1.0, "delta": 1e-5, "sampling_rate": 0.02}
    rounds = accounting.max_rounds(epsilon=3.0, **run)
    assert accounting.epsilon(rounds=rounds, **run) <= 3.0
    assert accounting.epsilon(rounds=rounds + 1, **run) > 3.0
    assert accounting.max_rounds(epsilon=0.5, delta=1e-5, noise_multiplier=1.0) == 0


@pytest.mark.slow
def test_min_cohort_reproduces_the_published_tutorial():
    entry = next(e for e in TRUTH if e["group"] == "published")
    run = {"epsilon": 2.0, "delta": 1e-5, "rounds": 100, "clients": 3383, "noise_on_mean": 0.01}
    assert accounting.min_cohort(**run, accountant="rdp") == entry["value"]
    assert accounting.min_cohort(**run) < entry["value"]
    with pytest.raises(ValueError, match="even all 3383 clients"):
        accounting.min_cohort(**{**run, "noise_on_mean": 1e-4})


# ---- the Gaussian mechanism from first principles


def kolmogorov(x, cdf):
    """The largest distance between the empirical and the given distribution function."""
    values = np.array([cdf(v) for v in np.sort(x)])
    steps = np.arange(len(x) + 1) / len(x)
    return max((values - steps[:-1]).max(), (steps[1:] - values).max())


@pytest.mark.parametrize(("dimension", "mu"), [(1, 0.3), (7, 1.0), (200, 2.5)])
def test_the_loss_of_a_gaussian_is_gaussian(dimension, mu):
    rng, n, sigma = np.random.default_rng(dimension), 20_000, 1.7
    v = rng.standard_normal(dimension)
    v *= mu * sigma / np.linalg.norm(v)
    noise = sigma * rng.standard_normal((n, dimension))
    for sign, outcomes in ((1, v + noise), (-1, noise)):
        loss = ((outcomes**2).sum(axis=1) - ((outcomes - v) ** 2).sum(axis=1)) / (2 * sigma**2)
        law = NormalDist(sign * mu**2 / 2, mu)
        # False alarms, by the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart: 1e-9.
        assert kolmogorov(loss, law.cdf) < math.sqrt(math.log(2e9) / (2 * n))
        assert kolmogorov(loss + 0.1 * mu, law.cdf) > math.sqrt(math.log(2e9) / (2 * n))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 5.0])
def test_noise_levels_add_in_squares(epsilon):
    """The excess of the joint loss of three releases, each choosing its function by the last."""
    rng, n, mus = np.random.default_rng(7), 200_000, (0.4, 0.8, 1.2)
    loss, seen = np.zeros(n), np.zeros(n)
    for mu in mus:
        shift = np.where(seen > 0, mu, -mu)  # the direction follows the previous release
        seen = shift + rng.standard_normal(n)
        loss += (seen**2 - (seen - shift) ** 2) / 2
    excess = np.maximum(0.0, -np.expm1(epsilon - loss))
    joint = math.sqrt(sum(mu**2 for mu in mus))
    delta = accounting.gaussian_delta(joint, epsilon)
    # Five standard errors: a false alarm in 6e-7 of all runs.
    assert abs(excess.mean() - delta) < 5 * excess.std() / math.sqrt(n)
    assert abs(excess.mean() - accounting.gaussian_delta(sum(mus), epsilon)) > 0.1 * delta
    events = [Event(1 / mu) for mu in mus]
    assert accounting.delta_of(events, epsilon) == pytest.approx(delta, rel=1e-9)


@pytest.mark.parametrize("entry", entries("gaussian_calibration", "classical"))
def test_the_classical_formula_at_known_values(entry):
    p = entry["params"]
    sigma = math.sqrt(2 * math.log(1.25 / p["delta"])) / p["epsilon"]
    assert sigma == pytest.approx(entry["value"], rel=1e-12)
    true = accounting.gaussian_delta(1 / sigma, p["epsilon"])
    assert true == pytest.approx(entry["true_delta_achieved"], rel=1e-5)
    if p["epsilon"] <= 4:
        assert true < p["delta"]
    if p["epsilon"] >= 50:
        assert true > 1e4 * p["delta"]


@few
@given(st.floats(0.01, 1), st.floats(-12, -0.1).map(lambda x: 10**x))
def test_the_classical_formula_below_one_and_far_above(epsilon, delta):
    def true(e):
        return accounting.gaussian_delta(e / math.sqrt(2 * math.log(1.25 / delta)), e)

    assert true(epsilon) <= delta
    assert true(1000.0) > 0.99


# ---- Opacus behind the same signature


def test_opacus_accountants_bound_from_above_and_stay_non_negative():
    run = {"noise_multiplier": 1.0, "delta": 1e-5, "rounds": 100, "sampling_rate": 0.05}
    pld, prv, rdp = (accounting.epsilon(**run, accountant=a) for a in ("pld", "prv", "rdp"))
    assert pld <= prv * LOOSE
    assert prv <= pld + 0.02
    assert prv < rdp < 1.5 * pld
    big_delta = {**run, "noise_multiplier": 50.0, "delta": 0.1}
    assert accounting.epsilon(**big_delta, accountant="rdp") == 0.0


def test_gdp_says_that_it_is_an_approximation():
    run = {"noise_multiplier": 2.0, "delta": 1e-5, "rounds": 100, "sampling_rate": 0.05}
    with pytest.warns(UserWarning, match="approximation"):
        accounting.epsilon(**run, accountant="gdp")


def test_opacus_failures_become_clear_errors():
    run = {"noise_multiplier": 0.1, "delta": 1e-5, "rounds": 1000, "sampling_rate": 0.05}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="use accountant='pld'"):
            accounting.epsilon(**run, accountant="gdp")
    with pytest.raises(ValueError, match=r"smallest is 0\.1"):
        accounting.noise_multiplier(
            epsilon=0.05, delta=1e-5, rounds=100, sampling_rate=0.01, accountant="rdp"
        )
    for extra in ({"sampling": "fixed", "clients": 20}, {"cap": 5, "clients": 20}):
        with pytest.raises(ValueError, match="use accountant='pld'"):
            accounting.epsilon(**run, **extra, accountant="prv", adjacency="replace-one")


# ---- refusals

GOOD = {"noise_multiplier": 1.0, "delta": 1e-5, "rounds": 10, "sampling_rate": 0.1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_multiplier", 0.0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", math.inf),
        ("noise_multiplier", "one"),
        ("delta", -1e-9),
        ("delta", 1.01),
        ("delta", None),
        ("rounds", 0),
        ("rounds", 1.5),
        ("rounds", True),
        ("sampling_rate", -0.1),
        ("sampling_rate", 1.01),
        ("sampling_rate", math.nan),
        ("sampling", "shuffled"),
        ("adjacency", "neighbour"),
        ("accountant", "moments"),
        ("clients", 0),
        ("cap", 3),
        ("sampling", "none"),
        ("sampling", "fixed"),
    ],
)
def test_bad_arguments_name_themselves(name, value):
    with pytest.raises(ValueError, match=name):
        accounting.epsilon(**{**GOOD, name: value})


def test_more_refusals():
    for epsilon in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="epsilon"):
            accounting.noise_multiplier(epsilon=epsilon, delta=1e-5, rounds=1)
    with pytest.raises(ValueError, match="replace-one"):
        accounting.epsilon(**{**GOOD, "sampling": "fixed", "clients": 100})
    with pytest.raises(ValueError, match="whole cohort"):
        accounting.epsilon(**{**GOOD, "sampling": "fixed", "clients": 101})
    with pytest.raises(ValueError, match="almost no noise"):
        accounting.noise_multiplier(epsilon=8.0, delta=0.5, rounds=1, sampling_rate=0.1)
    with pytest.raises(ValueError, match="at most 1e\\+07"):
        accounting.noise_multiplier(epsilon=1e300, delta=1e-3, rounds=60, sampling_rate=0.25)
    with pytest.raises(ValueError, match="pld"):
        accounting.delta(noise_multiplier=1.0, epsilon=1.0, rounds=1, accountant="rdp")
    with pytest.raises(ValueError, match="Event"):
        accounting.epsilon_of(["round"], 1e-5)


@pytest.mark.parametrize("delta", [1e-15, 1e-60, 0.3, 0.9])
@pytest.mark.parametrize(
    ("z", "q", "rounds"),
    [(0.05, 0.3, 1), (1e-2, 0.5, 10), (1e3, 1e-5, 100), (0.3, 0.01, 10**6), (30.0, 0.9, 10**7)],
)
def test_extremes_give_a_number_or_an_honest_error(z, q, rounds, delta):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = accounting.epsilon(
                noise_multiplier=z, delta=delta, rounds=rounds, sampling_rate=q
            )
    except ValueError as error:
        assert "use more noise" in str(error)  # noqa: PT017
    else:
        assert 0 <= found < math.inf


# What callers pass by mistake, and what a hostile one might.
ODD = [
    None, True, False, 0, 1, -1, 0.5, 1.5, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-300,
    1e-200, 1e200, 1e300, 10**15, 10**16, 10**400, 10**5000, "", "x", "1", b"1", "poisson", "fixed",
    "none", "zero-out", "replace-one", [], [1], (), {}, {1}, object(), 1 + 1j, Decimal("0.1"),
    Fraction(1, 3), np.float64(0.3), np.int64(5), np.bool_(True), np.array(3.0),
    np.array([1.0, 2.0]), int, len,
]  # fmt: skip
RUN = {
    "noise_multiplier": 1.0, "delta": 1e-5, "rounds": 10, "sampling_rate": 0.1,
    "sampling": "poisson", "adjacency": "zero-out", "accountant": "pld", "clients": 100,
    "cap": None, "known": False,
}  # fmt: skip


def without(*names, **more):
    return {name: value for name, value in RUN.items() if name not in names} | more


QUESTIONS = [
    (accounting.epsilon, RUN),
    (accounting.delta, without("delta", epsilon=1.0)),
    (accounting.noise_multiplier, without("noise_multiplier", epsilon=1.0)),
    (accounting.max_rounds, without("rounds", epsilon=1.0)),
    (
        accounting.min_cohort,
        {
            "epsilon": 2.0, "delta": 1e-5, "rounds": 10, "clients": 100, "noise_on_mean": 0.1,
            "sampling": "poisson", "adjacency": "zero-out", "accountant": "pld",
        },
    ),
    (accounting.epsilon_of, {"events": [Event(1.0)], "delta": 1e-5, "group": 1}),
    (accounting.delta_of, {"events": [Event(1.0)], "epsilon": 1.0, "group": 1}),
    (accounting.gaussian_epsilon, {"mu": 1.0, "delta": 1e-5}),
    (accounting.gaussian_delta, {"mu": 1.0, "epsilon": 1.0}),
    (accounting.gaussian_mu, {"epsilon": 1.0, "delta": 1e-5}),
    (accounting.zcdp_epsilon, {"rho": 1.0, "delta": 1e-5}),
    (accounting.zcdp_rho, {"epsilon": 1.0, "delta": 1e-5}),
    (accounting.privacy_curve, {"events": [Event(1.0)], "epsilons": [1.0], "group": 1}),
    (accounting.renyi, {"events": [Event(1.0)], "orders": [2.0], "group": 1}),
    (accounting.tradeoff, {"events": [Event(1.0)], "alphas": [0.1], "group": 1}),
    (accounting.from_opacus, {"history": [(1.0, 0.1, 3)]}),
    (accounting.event_from_dict, {"fields": {"noise_multiplier": 1.0}}),
    (
        fldp.calibrate_records,
        {
            "epsilon": 8.0, "delta": 1e-5, "rounds": 2, "local_epochs": 1, "batch_size": 4,
            "client_sizes": [10, 20], "client_sampling_rate": 1.0, "participations": None,
            "adjacency": "add-or-remove", "accountant": "pld",
        },
    ),
    (
        fldp.explain_recipe,
        {
            "epsilon": 1.0, "delta": 1e-5, "rounds": 3, "batch_size": 8, "clients": 10,
            "records": 500, "client_sizes": None, "local_epochs": 1, "user_sample_rate": 1.0,
            "weights": None, "true_delta": None,
        },
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("ask", "arguments"), QUESTIONS, ids=[f.__name__ for f, _ in QUESTIONS])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a06_odd_arguments_are_answered_or_refused_by_us(ask, arguments, data):
    """Never a raw error, never a warning of a library, never a number that is none."""
    names = data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2))
    odd = dict(arguments)
    for name in names:
        odd[name] = data.draw(st.sampled_from(ODD))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = ask(**odd)
    except ValueError as error:
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        assert "fldp" in Path(trace.tb_frame.f_code.co_filename).parts[-3:]
        assert 10 < len(str(error)) < 400  # noqa: PT017
    else:
        if isinstance(found, float):
            assert found >= 0


def test_accounting_loads_numpy_only():
    code = (
        "import sys, fldp; fldp.noise_multiplier(epsilon=1.0, delta=1e-5, rounds=9, "
        "sampling_rate=0.1); print({'torch', 'scipy', 'opacus'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize("sampling_z", [0.1, 1e-4])
def test_a01_a_group_in_a_cohort_of_fixed_size_follows_its_draw(sampling_z: float) -> None:
    # one of two clients takes part in every round: independent coins would give delta = 3/4
    event = Event(sampling_z, 0.5, "fixed", 1, 2, known=True)
    assert accounting.delta_of([event], 0.0, "zero-out", group=2) > 0.999
    hidden = Event(sampling_z, 0.5, "fixed", 1, 2)
    assert accounting.delta_of([hidden], 0.0, "replace-one", group=2) > 0.999


@pytest.mark.parametrize("adjacency", ["zero-out", "replace-one"])
def test_a01_a_group_with_known_participation_is_the_exact_mixture(adjacency: str) -> None:
    z, clients, cohort, group, epsilon = 0.3, 7, 4, 3, 1.0
    event = Event(z, cohort / clients, "fixed", 2, clients, known=True)
    unit = 2 if adjacency == "replace-one" else 1
    draws = math.comb(clients, cohort)
    chance = [
        math.comb(group, j) * math.comb(clients - group, cohort - j) / draws
        for j in range(group + 1)
    ]
    exact = sum(
        chance[i] * chance[j] * accounting.gaussian_delta(unit * math.hypot(i, j) / z, epsilon)
        for i in range(group + 1)
        for j in range(group + 1)
        if i + j
    )
    found = accounting.delta_of([event], epsilon, adjacency, group=group)
    assert exact <= found < exact * 1.01


def test_a06_a_rate_of_one_has_an_answer_also_in_groups_and_mixes() -> None:
    known = Event(1.0, 1.0, "poisson", 3, 10, 5, known=True)
    capped = Event(1.0, 1.0, "poisson", 3, 10, 5)
    one = accounting.epsilon_of([known], 1e-5, "zero-out")
    assert accounting.epsilon_of([known], 1e-5, "zero-out", group=2) > one
    mixed = accounting.epsilon_of([known, accounting.Laplace(1e3)], 1e-5, "zero-out")
    assert one < mixed < one + 0.01
    alone = accounting.epsilon_of([capped], 1e-5, "zero-out")
    assert accounting.epsilon_of([capped], 1e-5, "zero-out", group=2) > alone


def test_a06_a_large_step_for_a_group_says_that_nothing_holds() -> None:
    step = accounting.Approximate(800.0, 1e-7)
    assert accounting.epsilon_of([step], 1e-5, "zero-out", group=2) == math.inf
    pure = accounting.Approximate(800.0, 0.0)
    assert accounting.epsilon_of([pure], 1e-5, "zero-out", group=2) <= 1600
    small = accounting.Approximate(0.5, 1e-9)
    growth = 1 + math.exp(0.5)
    found = accounting.epsilon_of([small], growth * 1e-9 * (1 + 1e-9), "zero-out", group=2)
    assert found == pytest.approx(1.0)


@pytest.mark.parametrize("value", [1e16, 1e300, 1e308])
def test_a06_sizes_beyond_double_precision_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="rho is"):
        accounting.Concentrated(value)
    with pytest.raises(ValueError, match="epsilon is"):
        accounting.Approximate(value, 0.0)


def test_a06_what_would_fill_the_memory_is_refused_before() -> None:
    with pytest.raises(ValueError, match="rho is"):
        accounting.Concentrated(1e14)
    spent = accounting.epsilon_of([accounting.Concentrated(9e8, rounds=10**6), Event(1.0)], 1e-5)
    assert spent > 9e14


def test_a06_a_delta_below_the_smallest_that_is_told_apart_is_refused() -> None:
    for event in (Event(1.0, 0.5, "poisson", 3, known=True), Event(1.0)):
        with pytest.raises(ValueError, match="at least 1e-300"):
            accounting.epsilon_of([event], 5e-324, "zero-out")


@pytest.mark.parametrize("epsilon", [1e200, 1e300, 1.7e308])
def test_delta_far_beyond_any_use_is_answered_without_a_warning(epsilon: float) -> None:
    found = accounting.delta(
        noise_multiplier=1.0, epsilon=epsilon, rounds=10, sampling_rate=0.1, adjacency="zero-out"
    )
    # The least that is stated: rounded up, never 0.
    assert 0 <= found <= 1e-300
