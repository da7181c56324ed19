import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import fldp
from fldp import accounting
from fldp.plan import PrivacyPlan, calibrate, participations, suggest_delta

BASE = {"epsilon": 8.0, "delta": 1e-3, "rounds": 60, "clients": 480, "cohort": 120}


def test_calibrated_plan_spends_its_budget_and_not_more():
    plan = calibrate(**BASE)
    assert 0.999 * 8 <= plan.epsilon() <= 8
    assert plan.epsilon(0) == 0 < plan.epsilon(30) < plan.epsilon()
    assert (plan.sampling_rate, plan.denominator) == (0.25, 120)
    assert plan.event == accounting.Event(plan.noise_multiplier, 0.25, "poisson", 1, 480, None)


def test_the_events_of_a_plan_are_its_account():
    plan = calibrate(**BASE)
    assert plan.events() == [dataclasses.replace(plan.event, rounds=60)]
    assert plan.events(0) == []
    assert plan.epsilon(61) == accounting.epsilon_of(plan.events(61), plan.delta)
    with pytest.raises(ValueError, match="rounds is -1"):
        plan.events(-1)


def test_what_was_recorded_composes_with_the_plan_s_own_rounds():
    plan = calibrate(**BASE)
    histogram, figure = accounting.Laplace(2.0), accounting.Approximate(0.1, 1e-7)
    own = [plan.event] * 10 + plan.events(20)
    mixed = [histogram, *own, figure]
    assert plan.spent(own) == plan.epsilon(30)
    assert plan.spent([]) == 0
    composed = accounting.epsilon_of([histogram, figure, *plan.events(30)], plan.delta)
    assert plan.spent(mixed) == pytest.approx(composed, rel=1e-9)
    replaced = plan.spent(own, delta=1e-5, adjacency="replace-one")
    assert replaced == accounting.epsilon_of(plan.events(30), 1e-5, "replace-one")
    with pytest.raises(ValueError, match="events hold 3"):
        plan.spent([3])


@pytest.mark.slow
def test_what_opacus_does_not_know_is_composed_by_our_own_accountant():
    plan = calibrate(**BASE | {"accountant": "rdp"})
    assert plan.spent(plan.events()) == plan.epsilon() > plan.spent(plan.events(), accountant="pld")
    histogram = accounting.Laplace(2.0)
    ours = accounting.epsilon_of([histogram, *plan.events(30)], plan.delta)
    assert plan.spent([*plan.events(30), histogram]) == pytest.approx(ours, rel=1e-9)


def test_a_plan_knows_its_rounds_up_to_the_rounding_of_z():
    plan = calibrate(**BASE)
    z = plan.noise_multiplier
    for noise, own in ((math.nextafter(z, 0), True), (z * (1 + 1e-10), False)):
        event = dataclasses.replace(plan.event, noise_multiplier=noise, rounds=3)
        assert plan.owns(event) is own
        assert (plan.spent([event]) == plan.epsilon(3)) is own
    assert not plan.owns(accounting.Laplace(2.0))
    assert not plan.owns(dataclasses.replace(plan.event, cap=200))


def test_a_budget_affords_the_plan_s_rounds_and_no_more():
    plan = calibrate(**BASE)
    assert plan.affords(plan.events())
    assert not plan.affords(plan.events(61))
    assert not plan.affords([accounting.Event(3.0), *plan.events()])
    assert plan.affords([accounting.Event(30.0), *plan.events(50)])
    assert plan.affords([])
    # A plan that misses its target says so in its statement; its own rounds are what it states.
    short = dataclasses.replace(plan, target_epsilon=1.0)
    assert short.affords(short.events())
    assert not short.affords([*short.events(59), accounting.Event(1e6)])


def test_everyone_takes_part_without_a_cohort():
    plan = calibrate(epsilon=1, delta=1e-5, rounds=15, clients=10)
    assert plan.sampling == "none"
    assert plan.event.sampling_rate == plan.sampling_rate == 1
    assert plan.noise_multiplier == pytest.approx(14.44865382377031, rel=1e-5)


def test_no_amplification_claimed_divides_by_the_cohort():
    plan = calibrate(**BASE | {"sampling": "none"})
    everyone = calibrate(**BASE | {"cohort": None})
    assert plan.noise_multiplier == everyone.noise_multiplier
    assert plan.denominator == 120
    assert plan.sampling_rate == 0.25
    assert plan.event.sampling == "none"


def test_replace_one_doubles_the_noise_without_sampling():
    one = calibrate(epsilon=1, delta=1e-5, rounds=15, clients=10, adjacency="replace-one")
    assert one.noise_multiplier == pytest.approx(28.897348401096277, rel=1e-6)


def test_local_trust_is_accounted_per_message():
    local = calibrate(**BASE | {"trust": "local"})
    assert local.event == accounting.Event(local.noise_multiplier, known=True)
    assert local.noise_multiplier == calibrate(**BASE | {"sampling": "none"}).noise_multiplier
    assert local.snr(100) == pytest.approx(math.sqrt(120) / (local.noise_multiplier * 10))


def test_fixed_size_costs_more_than_poisson_and_wants_replace_one():
    fixed = calibrate(**BASE | {"sampling": "fixed", "adjacency": "replace-one"})
    poisson = calibrate(**BASE | {"adjacency": "replace-one"})
    assert fixed.noise_multiplier >= poisson.noise_multiplier
    with pytest.raises(ValueError, match="another moves up"):
        calibrate(**BASE | {"sampling": "fixed"})


def test_a_wide_cap_costs_next_to_nothing():
    capped = calibrate(**BASE | {"cap": 180})
    assert capped.event.cap == 180
    assert capped.noise_multiplier == pytest.approx(calibrate(**BASE).noise_multiplier, rel=2e-3)


def mixture(plan, epsilon, sensitivity=1.0):
    """δ of K ~ Bin(T, q) plain Gaussians, K known: independent of the package."""
    k = np.arange(1, plan.rounds + 1)
    weights = stats.binom.pmf(k, plan.rounds, plan.sampling_rate)
    mu = sensitivity * np.sqrt(k) / plan.noise_multiplier
    miss = np.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu))
    return float(weights @ (stats.norm.cdf(mu / 2 - epsilon / mu) - miss))


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
def test_cohort_known_is_the_exact_mixture_with_its_bounds(adjacency):
    plan = calibrate(**BASE | {"adjacency": adjacency})
    known = plan.cohort_known()
    sensitivity = 2.0 if adjacency == "replace-one" else 1.0
    assert mixture(plan, known["epsilon"], sensitivity) == pytest.approx(plan.delta, rel=1e-6)
    assert plan.epsilon() < known["epsilon"] < known["epsilon_bound"] < known["epsilon_all"]
    assert (known["mean"], known["rounds"], known["confidence"]) == (15, 60, 0.999)
    assert 480 * stats.binom.sf(known["bound"], 60, 0.25) <= 1e-3
    assert 480 * stats.binom.sf(known["bound"] - 1, 60, 0.25) > 1e-3
    every = accounting.gaussian_epsilon(
        sensitivity * math.sqrt(60) / plan.noise_multiplier, plan.delta
    )
    assert known["epsilon_all"] == pytest.approx(every, rel=1e-9)


def test_cohort_known_of_the_quickstart():
    assert calibrate(**BASE).cohort_known()["epsilon"] == pytest.approx(17.39, abs=0.005)


def test_cohort_known_where_no_amplification_is_claimed_is_that_of_all_rounds():
    for change in ({"cohort": None}, {"sampling": "none"}, {"trust": "local"}):
        plan = calibrate(**BASE | change)
        known = plan.cohort_known()
        assert known["mean"] == known["bound"] == known["rounds"] == 60
        assert known["epsilon"] == known["epsilon_all"] == pytest.approx(plan.epsilon())


def test_server_view_is_an_alias_with_its_old_keys():
    plan = PrivacyPlan(
        1.0, 3400**-1.1, 1500, 3400, 100, "poisson", "central", "add-or-remove", "pld", 6.36
    )
    with pytest.warns(DeprecationWarning, match="cohort_known"):
        view = plan.server_view()
    assert plan.epsilon() == pytest.approx(6.35006, rel=1e-3)
    assert view["mean"] == pytest.approx(1500 / 34)
    assert view["epsilon_mean"] == pytest.approx(45.4, rel=0.02)
    assert 70 < view["bound"] < 90
    assert view["epsilon_bound"] > view["epsilon_mean"] > plan.epsilon()
    assert {k: v for k, v in view.items() if k != "epsilon_mean"} == plan.cohort_known()


@pytest.mark.parametrize(
    ("clients", "cohort", "survivors", "rounds", "epsilon", "found"),
    [
        (3400, 100, 80, 1500, 8.0, 24.8),
        (480, 120, 100, 60, 8.0, 11.2),
        (1000, 50, 40, 100, 2.0, 4.9),
    ],
)
def test_p01_distributed_trust_pays_for_known_cohorts(
    clients, cohort, survivors, rounds, epsilon, found
):
    """The lower bounds `found` by whoever sees the sum and the count refute amplified noise."""
    settings = {"epsilon": epsilon, "rounds": rounds, "clients": clients, "cohort": cohort}
    settings["delta"] = 1 / (2 * clients)
    amplified = calibrate(**settings)
    plan = calibrate(**settings, trust="distributed", min_survivors=survivors)
    assert plan.adjacency == "zero-out"
    assert plan.event.known
    assert plan.noise_multiplier > 1.2 * amplified.noise_multiplier
    assert mixture(plan, epsilon) == pytest.approx(plan.delta, rel=0.02)
    with_old_noise = dataclasses.replace(plan, noise_multiplier=amplified.noise_multiplier)
    assert with_old_noise.epsilon() > found


@pytest.mark.parametrize("sampling", ["poisson", "none"])
@pytest.mark.parametrize("trust", ["distributed", "local"])
def test_p01_where_the_cohort_is_known_add_or_remove_is_refused(trust, sampling):
    survivors = 90 if trust == "distributed" else None
    change = {"trust": trust, "min_survivors": survivors, "sampling": sampling}
    with pytest.raises(ValueError, match=r"adjacency is 'add-or-remove'.*use adjacency='zero-out'"):
        calibrate(**BASE | change | {"adjacency": "add-or-remove"})
    plan = calibrate(**BASE | change)
    assert plan.adjacency == "zero-out"
    with pytest.raises(ValueError, match="add-or-remove"):
        dataclasses.replace(plan, adjacency="add-or-remove")
    with pytest.raises(ValueError, match="known"):
        accounting.epsilon_of([plan.event], 1e-5, "add-or-remove")


@pytest.mark.parametrize("accountant", ["prv", "rdp", "gdp"])
def test_p01_accountants_without_that_adversary_are_refused_for_sampled_sums(accountant):
    change = {"trust": "distributed", "min_survivors": 90, "accountant": accountant}
    with pytest.raises(ValueError, match="no adversary who knows who took part"):
        calibrate(**BASE | change)


def test_local_trust_and_everyone_keep_the_other_accountants():
    rdp = calibrate(**BASE | {"trust": "local", "accountant": "rdp"})
    assert rdp.noise_multiplier > calibrate(**BASE | {"trust": "local"}).noise_multiplier


def test_fixed_size_is_zero_out_where_the_cohort_is_known():
    change = {"trust": "distributed", "min_survivors": 90, "sampling": "fixed"}
    fixed, poisson = (
        calibrate(**BASE | change),
        calibrate(**BASE | change | {"sampling": "poisson"}),
    )
    assert fixed.adjacency == "zero-out"
    assert fixed.noise_multiplier == pytest.approx(poisson.noise_multiplier, rel=1e-9)


@pytest.mark.parametrize("sampling", ["poisson", "none"])
def test_p03_seeded_epsilon_is_a_gaussian_for_each_participation(sampling):
    plan = calibrate(**BASE | {"sampling": sampling})
    for k in (1, 15, 60):
        exact = accounting.gaussian_epsilon(math.sqrt(k) / plan.noise_multiplier, plan.delta)
        assert plan.seeded_epsilon(k) == pytest.approx(exact, rel=1e-9)
    assert plan.seeded_epsilon(0) == 0
    if sampling == "none":
        assert plan.seeded_epsilon(60) == plan.epsilon()


def test_p03_under_a_cap_a_seeded_draw_moves_the_sum_by_twice_the_clip():
    free, capped = calibrate(**BASE), calibrate(**BASE | {"cap": 200})
    same = dataclasses.replace(capped, noise_multiplier=2 * free.noise_multiplier)
    assert same.seeded_epsilon(20) == pytest.approx(free.seeded_epsilon(20), rel=1e-9)
    zero = dataclasses.replace(capped, adjacency="zero-out")
    assert zero.seeded_epsilon(20) < capped.seeded_epsilon(20)


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.sampled_from([0.5, 1e-3, 1e-9]))
@settings(deadline=None, max_examples=40)
def test_participation_bound_is_the_exact_binomial_quantile(rounds, rate, failure):
    k = participations(rounds, rate, failure)
    pmf = [math.comb(rounds, i) * rate**i * (1 - rate) ** (rounds - i) for i in range(rounds + 1)]
    assert math.fsum(pmf[k + 1 :]) <= failure * (1 + 1e-6)
    assert k == 0 or math.fsum(pmf[k:]) > failure * (1 - 1e-6)


def test_participation_bound_of_very_long_runs_needs_no_array():
    assert participations(10**6, 0.01, 1e-6) <= participations(10**6 + 1, 0.01, 1e-6)
    assert 10**10 < participations(10**12, 0.01, 1e-6) < 1.001 * 10**10


@given(st.integers(1, 10**9))
def test_p13_default_delta_is_never_above_the_usual_and_shrinks_with_the_population(clients):
    delta = suggest_delta(clients)
    assert delta == min(1e-5, clients**-1.1)
    assert delta * clients < 0.36


def test_default_delta_of_a_plan():
    assert calibrate(**BASE | {"delta": None}).delta == 1e-5
    assert calibrate(epsilon=8.0, rounds=5, clients=10**6).delta == (10**6) ** -1.1


def test_large_delta_warns_and_says_why():
    with pytest.warns(UserWarning, match=r"1/clients.*one random client"):
        calibrate(**BASE | {"delta": 0.01})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(**BASE)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epsilon": 0}, "epsilon is 0"),
        ({"epsilon": -1}, "epsilon is -1"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"epsilon": "much"}, "epsilon is 'much'"),
        ({"delta": 0}, "delta is 0"),
        ({"delta": 1}, "delta is 1"),
        ({"delta": math.nan}, "delta is nan"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 1.5}, "rounds is 1.5"),
        ({"clients": 0}, "clients is 0"),
        ({"clients": True}, "clients is True"),
        ({"cohort": 481}, "cohort is 481 but there are 480"),
        ({"cohort": 0}, "cohort is 0"),
        ({"sampling": "shuffle"}, "sampling is 'shuffle'.*'poisson'"),
        ({"trust": "nobody"}, "trust is 'nobody'.*'central'"),
        ({"adjacency": "swap"}, "adjacency is 'swap'.*'replace-one'"),
        ({"accountant": "magic"}, "accountant is 'magic'.*'pld'"),
        ({"sampling": "fixed", "adjacency": "replace-one", "cohort": 10.5}, "whole number"),
        ({"cap": 100}, "cap is 100, below"),
        ({"cap": 200, "sampling": "none"}, "cap is 200 with sampling='none'"),
        ({"trust": "distributed"}, "min_survivors is None"),
        ({"trust": "distributed", "min_survivors": 200}, "min_survivors is 200, above"),
        (
            {"trust": "distributed", "adjacency": "add-or-remove", "min_survivors": 9},
            "noise itself",
        ),
        ({"min_survivors": 50}, "min_survivors is 50 with trust='central'"),
    ],
)
def test_bad_input_is_named_before_any_work(change, match, monkeypatch):
    monkeypatch.setattr(accounting, "noise_multiplier", lambda **_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=match):
        calibrate(**BASE | change)


def test_round_trip_is_exact_and_strict():
    plan = calibrate(**BASE | {"cap": 200})
    fields = json.loads(json.dumps(plan.to_dict()))
    assert PrivacyPlan.from_dict(fields) == PrivacyPlan.from_json(plan.to_json()) == plan
    with pytest.raises(ValueError, match="unknown fields"):
        PrivacyPlan.from_dict(fields | {"sigma": 1})
    with pytest.raises(ValueError, match="missing fields"):
        PrivacyPlan.from_dict({k: v for k, v in fields.items() if k != "cap"})
    with pytest.raises(ValueError, match="noise_multiplier is -1"):
        PrivacyPlan.from_dict(fields | {"noise_multiplier": -1})
    with pytest.raises(ValueError, match="not JSON"):
        PrivacyPlan.from_json("{")
    with pytest.raises(ValueError, match="dict of its fields"):
        PrivacyPlan.from_json("[]")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.delta = 0.1


def test_colluders_are_stated_and_raise_what_a_round_needs():
    shared = {**BASE, "trust": "distributed", "min_survivors": 60}
    plan, alone = calibrate(**shared, colluders=30), calibrate(**shared)
    # Shares are made for the honest: the noise is the same, and more rounds are skipped.
    assert plan.noise_multiplier == alone.noise_multiplier
    assert plan.skips()["round"] == calibrate(**{**shared, "min_survivors": 90}).skips()["round"]
    assert PrivacyPlan.from_json(plan.to_json()) == plan != alone
    old = {name: value for name, value in alone.to_dict().items() if name != "colluders"}
    assert PrivacyPlan.from_dict(old) == alone
    for bad in (-1, 1.5, None, "2"):
        with pytest.raises(ValueError, match="colluders is"):
            calibrate(**shared, colluders=bad)


def test_the_old_name_of_min_survivors_works_for_one_version():
    shared = BASE | {"trust": "distributed"}
    plan = calibrate(**shared, min_survivors=90)
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now") as caught:
        assert calibrate(**shared, survivors=90) == plan
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now") as read:
        assert plan.survivors == 90
    assert caught[0].filename == read[0].filename == __file__
    fields = plan.to_dict()
    assert "survivors" not in fields
    fields["survivors"] = fields.pop("min_survivors")
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now"):
        assert PrivacyPlan.from_dict(fields) == plan
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now"):
        assert PrivacyPlan.from_json(json.dumps(fields)) == plan
    with pytest.raises(ValueError, match="survivors is the old name"):
        calibrate(**shared, min_survivors=90, survivors=90)
    with pytest.raises(ValueError, match=r"unknown fields \['survivors'\]"):
        PrivacyPlan.from_dict(plan.to_dict() | {"survivors": 90})


def test_group_privacy_grows_and_is_exact_without_sampling():
    plan = calibrate(**BASE)
    assert plan.group(1) == pytest.approx(plan.epsilon(), rel=1e-6)
    assert plan.group(1) < plan.group(2) < plan.group(5)
    alone = calibrate(epsilon=1, delta=1e-5, rounds=1, clients=200)
    assert alone.group(2) == pytest.approx(2.155, rel=1e-3)
    assert alone.group(10) == pytest.approx(14.43, rel=1e-3)
    capped = calibrate(**BASE | {"cap": 200})
    assert capped.group(1) >= capped.epsilon()


def test_a01_a_group_in_a_known_fixed_cohort_is_there_as_often_as_it_must_be():
    # Of 2 clients exactly 1 takes part: a coin each would leave out both a quarter of the time.
    plan = PrivacyPlan(
        0.1, 0.6, 1, 2, 1, "fixed", "distributed", "zero-out", "pld", 50.0, min_survivors=1
    )
    assert plan.group(2) == pytest.approx(accounting.gaussian_epsilon(1 / 0.1, 0.6))


def test_gdp_and_zcdp_views_bound_the_plan():
    alone = calibrate(epsilon=1, delta=1e-5, rounds=15, clients=200)
    assert accounting.gaussian_epsilon(alone.gdp_mu, 1e-5) == pytest.approx(1, rel=1e-6)
    assert alone.zcdp == alone.gdp_mu**2 / 2
    sampled = calibrate(**BASE)
    assert accounting.gaussian_epsilon(sampled.gdp_mu, sampled.delta) > sampled.epsilon()


def test_notebook_view_and_public_names():
    plan = fldp.calibrate(**BASE)
    assert isinstance(plan, fldp.PrivacyPlan)
    assert "<table>" in plan._repr_html_()
    assert "Unit" in plan._repr_html_()


def test_plot_draws_both_adversaries():
    import matplotlib

    matplotlib.use("Agg")
    ax = calibrate(**BASE).plot()
    assert len(ax.lines) == 3
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(8, rel=1e-3)
    assert ax.lines[1].get_label() == "who also knows who took part"
    assert ax.lines[1].get_ydata()[-1] == pytest.approx(17.39, abs=0.01)
    assert len(calibrate(**BASE | {"cohort": None}).plot(ax).lines) == 5
    distributed = calibrate(**BASE | {"trust": "distributed", "min_survivors": 90}).plot()
    assert [line.get_label() for line in distributed.lines] == [
        "who sees the sums and who took part",
        "target",
    ]


def shared(**changes):
    """A plan of secure sums, not calibrated."""
    fields = {"clients": 100, "cohort": 20, "min_survivors": 16, "rounds": 100} | changes
    return PrivacyPlan(
        **{"noise_multiplier": 1.0, "delta": 1e-6, "sampling": "poisson", "trust": "distributed",
           "adjacency": "zero-out", "accountant": "pld", "target_epsilon": 8.0, **fields}
    )  # fmt: skip


@pytest.mark.parametrize(("clients", "cohort", "some"), [
    (100, 20, 1.0), (480, 120, 0.34), (10_000, 100, 0.82),
])  # fmt: skip
def test_r05_the_chance_of_a_skipped_round_at_four_fifths_of_the_cohort(clients, cohort, some):
    """The hint that used to be given: in 100 rounds one is lost almost surely."""
    plan = shared(clients=clients, cohort=cohort, min_survivors=int(0.8 * cohort))
    assert plan.skips()["any"] == pytest.approx(some, abs=0.005)


@given(st.integers(1, 400), st.floats(0.001, 1.0), st.floats(0, 1), st.integers(1, 1000))
def test_r05_the_chance_is_the_binomial_s(clients, rate, share, rounds):
    cohort = max(1.0, rate * clients)
    survivors = max(1, int(share * cohort))
    plan = shared(clients=clients, cohort=cohort, min_survivors=survivors, rounds=rounds)
    found = plan.skips()
    exact = stats.binom.cdf(survivors - 1, clients, min(1.0, cohort / clients))
    assert found["round"] == pytest.approx(exact, rel=1e-6, abs=1e-14)
    assert found["round"] >= exact * (1 - 1e-9) - 1e-15
    assert found["any"] == pytest.approx(1 - (1 - found["round"]) ** rounds, abs=1e-9)
    assert found["expected"] == rounds * found["round"]


def test_r05_nothing_is_skipped_where_everybody_needed_comes():
    nothing = {"round": 0.0, "any": 0.0, "expected": 0.0}
    assert shared(sampling="fixed").skips() == nothing
    assert shared(sampling="none").skips() == nothing
    assert shared(cohort=100).skips() == nothing
    assert calibrate(**BASE).skips() == nothing
    assert shared(cap=30).skips() == shared().skips()


def test_r05_the_hint_loses_a_round_in_a_thousand_at_most():
    for clients, cohort in ((100, 20), (480, 120), (10_000, 100), (50, 5), (1000, 1000)):
        with pytest.raises(ValueError, match=r"e\.g\. (\d+)") as caught:
            shared(clients=clients, cohort=cohort, min_survivors=None)
        hint = int(str(caught.value).rsplit(" ", 1)[1])
        assert shared(clients=clients, cohort=cohort, min_survivors=hint).skips()["round"] < 6e-3


@pytest.mark.parametrize("odd", [None, 3, [], {}, b"\xff", "{", object(), "[" * 100_000])
def test_what_is_no_json_is_refused_in_words(odd):
    with pytest.raises(ValueError, match=r"not JSON|a dict of its fields"):
        PrivacyPlan.from_json(odd)
