import dataclasses
import json
import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert local.event.sampling == "none"
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


def test_server_view_counts_own_participations():
    plan = PrivacyPlan(
        1.0, 3400**-1.1, 1500, 3400, 100, "poisson", "central", "add-or-remove", "pld", 6.36
    )
    view = plan.server_view()
    assert plan.epsilon() == pytest.approx(6.35006, rel=1e-3)
    assert view["mean"] == pytest.approx(1500 / 34)
    assert view["epsilon_mean"] == pytest.approx(45.4, rel=0.02)
    assert 70 < view["bound"] < 90
    assert view["epsilon_bound"] > view["epsilon_mean"] > plan.epsilon()
    everyone = calibrate(**BASE | {"cohort": None}).server_view()
    assert everyone["mean"] == everyone["bound"] == 60


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


def test_default_delta_follows_the_population():
    assert suggest_delta(3400) == 3400**-1.1
    assert suggest_delta(10) == 1e-5
    assert calibrate(**BASE | {"delta": None}).delta == 480**-1.1


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
        ({"trust": "distributed"}, "survivors is None"),
        ({"trust": "distributed", "survivors": 200}, "survivors is 200, above"),
        ({"survivors": 50}, "survivors is 50 with trust='central'"),
    ],
)
def test_bad_input_is_named_before_any_work(change, match, monkeypatch):
    monkeypatch.setattr(accounting, "noise_multiplier", lambda **_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=match):
        calibrate(**BASE | change)


def test_distributed_keeps_the_noise_of_the_sum():
    plan = calibrate(**BASE | {"trust": "distributed", "survivors": 90})
    assert plan.noise_multiplier == calibrate(**BASE).noise_multiplier
    assert "√90" in plan.statement()
    assert "as the server does" in " ".join(plan.statement().split())


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


def test_statement_names_every_part():
    plan = calibrate(**BASE)
    text = " ".join(plan.statement().split())
    for part in (
        "client level", "add-or-remove", "central", "own secret coin", "q = 0.25", "public 120",
        "0.001", "does not cover", "but not the server, which sees", "0.999", "BatchNorm",
    ):  # fmt: skip
        assert part in text, part
    assert "seed" not in text
    assert "seeded" in plan.statement(reproducible=True)
    assert "misses the target" in dataclasses.replace(plan, target_epsilon=1.0).statement()
    assert "weak" in dataclasses.replace(plan, noise_multiplier=0.5).statement()
    zero = calibrate(**BASE | {"sampling": "none"}).statement()
    assert "no amplification" in zero
    local = calibrate(**BASE | {"trust": "local"}).statement()
    assert "every message" in local
    assert "not hidden" in local


def test_group_privacy_grows_and_is_exact_without_sampling():
    plan = calibrate(**BASE)
    assert plan.group(1) == pytest.approx(plan.epsilon(), rel=1e-6)
    assert plan.group(1) < plan.group(2) < plan.group(5)
    alone = calibrate(epsilon=1, delta=1e-5, rounds=1, clients=200)
    assert alone.group(2) == pytest.approx(2.155, rel=1e-3)
    assert alone.group(10) == pytest.approx(14.43, rel=1e-3)
    capped = calibrate(**BASE | {"cap": 200})
    assert capped.group(1) >= capped.epsilon()


def test_gdp_and_zcdp_views_bound_the_plan():
    alone = calibrate(epsilon=1, delta=1e-5, rounds=15, clients=200)
    assert accounting.gaussian_epsilon(alone.gdp_mu, 1e-5) == pytest.approx(1, rel=1e-6)
    assert alone.zcdp == alone.gdp_mu**2 / 2
    sampled = calibrate(**BASE)
    assert accounting.gaussian_epsilon(sampled.gdp_mu, sampled.delta) > sampled.epsilon()


@pytest.mark.parametrize("trust", ["central", "local"])
def test_needed_reaches_the_target_and_no_less(trust):
    plan = calibrate(**BASE | {"trust": trust})
    target = 0.8 * calibrate(**BASE | {"trust": trust, "cohort": 480}).snr(650)
    found = plan.needed(target, 650)
    m = found["cohort"]
    at = [calibrate(**BASE | {"trust": trust, "cohort": k}).snr(650) for k in (m - 1, m)]
    assert at[0] < target <= at[1] * 1.001
    wider = dataclasses.replace(plan, clients=found["clients"], cohort=found["clients"] / 4)
    assert wider.snr(650) >= target * (1 - 1e-9)
    assert plan.needed(100 * target, 650)["cohort"] is None


def test_second_opinions_agree():
    plan = calibrate(epsilon=2, delta=1e-5, rounds=20, clients=1000, cohort=50)
    rows = {row["accountant"]: row for row in plan.verify()}
    assert len(rows) == 4
    ours = rows["fldp pld"]["epsilon"]
    assert rows["Opacus PRV"]["epsilon"] == pytest.approx(ours, abs=0.02)
    assert rows["Opacus RDP"]["epsilon"] > ours
    pld = rows["dp-accounting PLD"]
    assert (
        pld["note"] if pld["epsilon"] is None else pld["epsilon"] == pytest.approx(ours, rel=2e-3)
    )
    doubled = calibrate(epsilon=2, delta=1e-5, rounds=5, clients=100, adjacency="replace-one")
    for row in doubled.verify():
        assert row["epsilon"] is None or row["epsilon"] == pytest.approx(2, rel=0.15), row
    fixed = calibrate(**BASE | {"sampling": "fixed", "adjacency": "replace-one"})
    opinions = fixed.verify()
    assert [row["epsilon"] is None for row in opinions] == [False, True, True, True]
    assert "cannot express" in str(opinions)


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
    assert len(calibrate(**BASE | {"cohort": None}).plot(ax).lines) == 5
