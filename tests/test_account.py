"""What mixed events spend together: known values, other libraries, and bounds that must hold."""

from __future__ import annotations

import math
import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp.accounting import (
    Approximate,
    Concentrated,
    Event,
    Laplace,
    account,
    delta_of,
    epsilon_of,
    gaussian_epsilon,
    pld,
    zcdp_epsilon,
)
from fldp.accounting.composition import rounds_of

few = settings(deadline=None, max_examples=12)
LOOSE = 1 + 1e-3


# ---- participation that the adversary knows


def test_known_participation_of_the_quickstart():
    z = fldp.noise_multiplier(epsilon=8.0, delta=1e-3, rounds=60, sampling_rate=0.25)
    event = Event(z, 0.25, "poisson", 60, 480, known=True)
    assert epsilon_of([event], 1e-3, "zero-out") == pytest.approx(17.39, abs=0.01)
    assert epsilon_of([event], 1e-5, "zero-out") == pytest.approx(23.0, abs=0.01)
    assert gaussian_epsilon(math.sqrt(15) / z, 1e-5) == pytest.approx(19.51, abs=0.01)
    assert epsilon_of([event], 1e-5, "replace-one") > epsilon_of([event], 1e-5, "zero-out")


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_known_participation_by_the_kernel_is_the_closed_form(sampling):
    event = Event(1.3, 0.25, sampling, 40, 80, known=True)
    for adjacency in ("zero-out", "replace-one"):
        exact = epsilon_of([event], 1e-6, adjacency)
        by_kernel = pld.solve(rounds_of([event], adjacency, "remove"), delta=1e-6)
        assert exact * (1 - 1e-9) <= by_kernel <= exact * LOOSE
        plain = Event(9.0, rounds=4)
        mixed = pld.solve(rounds_of([event, plain], adjacency, "remove"), delta=1e-6)
        closed = epsilon_of([event, plain], 1e-6, adjacency)
        assert closed * (1 - 1e-9) <= mixed <= closed * LOOSE


def test_known_participation_hides_nobody_and_says_so():
    event = Event(1.0, 0.1, "poisson", known=True)
    for ask in (
        lambda: epsilon_of([event], 1e-5),
        lambda: delta_of([event], 1.0, "add-or-remove"),
        lambda: fldp.noise_multiplier(
            epsilon=1.0, delta=1e-5, rounds=3, sampling_rate=0.1, known=True
        ),
    ):
        with pytest.raises(ValueError, match="use adjacency='zero-out'"):
            ask()


@few
@given(st.floats(0.5, 5), st.floats(0.02, 0.9), st.integers(1, 200), st.floats(-9, -2))
def test_knowing_costs_and_certainty_costs_more(z, q, rounds, log10_delta):
    delta = 10**log10_delta
    secret, known, certain = (
        epsilon_of([event], delta, "zero-out")
        for event in (
            Event(z, q, "poisson", rounds),
            Event(z, q, "poisson", rounds, known=True),
            Event(z, rounds=rounds),
        )
    )
    assert secret <= known * LOOSE
    assert known <= certain * (1 + 1e-9)


def test_two_kinds_of_known_rounds_lie_between_their_extremes():
    one, two = (
        Event(1.0, 0.2, "poisson", 30, known=True),
        Event(2.0, 0.5, "poisson", 30, known=True),
    )
    low, mixed, high = (
        epsilon_of(run, 1e-6, "zero-out") for run in ([one], [one, two], [one, replace_z(two, 1.0)])
    )
    assert low < mixed < high


def replace_z(event, z):
    return Event(z, event.sampling_rate, event.sampling, event.rounds, known=event.known)


# ---- other mechanisms


def test_the_mechanisms_alone():
    assert epsilon_of([Laplace(2.0)], 1e-9) == pytest.approx(0.5, rel=1e-6)
    assert epsilon_of([Laplace(2.0, rounds=3)], 0.0) == pytest.approx(1.5)
    assert delta_of([Laplace(2.0)], 0.3) == pytest.approx(-math.expm1(0.5 * (0.3 - 0.5)), rel=1e-9)
    assert epsilon_of([Approximate(0.7, 1e-6)], 1e-6) == pytest.approx(0.7)
    assert epsilon_of([Approximate(0.7, 1e-6)], 1e-7) == math.inf
    assert delta_of([Approximate(0.7, 1e-6)], 0.7) == pytest.approx(1e-6)
    assert epsilon_of([Concentrated(2.56)], 1e-10) == zcdp_epsilon(2.56, 1e-10)
    assert epsilon_of([Concentrated(0.1, rounds=5)], 1e-6) == zcdp_epsilon(0.5, 1e-6)


def test_pure_steps_compose_as_randomised_response():
    """Kairouz, Oh & Viswanath 2015: k steps of (epsilon, 0), by the binomial sum."""
    k, e = 20, 0.3

    def exact(epsilon):
        p = 1 / (1 + math.exp(-e))
        total = 0.0
        for heads in range(k + 1):
            loss = (2 * heads - k) * e
            if loss > epsilon:
                weight = math.comb(k, heads) * p**heads * (1 - p) ** (k - heads)
                total += weight * -math.expm1(epsilon - loss)
        return total

    found = epsilon_of([Approximate(e, 0.0, rounds=k)], 1e-5)
    assert exact(found) <= 1e-5 * (1 + 1e-9)
    assert exact(found * (1 - 1e-3)) >= 1e-5
    assert found < k * e


@pytest.mark.slow
def test_laplace_and_gaussian_against_dp_accounting():
    accounting = pytest.importorskip("dp_accounting")
    accountants = pytest.importorskip("dp_accounting.pld")
    events = [Event(1.1, 0.05, "poisson", 60), Laplace(8.0, rounds=10), Event(9.0, rounds=3)]
    theirs = accountants.PLDAccountant().compose(fldp.accounting.to_dp_accounting(events))
    assert epsilon_of(events, 1e-6) == pytest.approx(theirs.get_epsilon(1e-6), rel=1e-3)
    assert accounting.__name__


@pytest.mark.slow
@settings(deadline=None, max_examples=6)
@given(st.integers(0, 10**6))
def test_a_mixture_is_between_its_largest_part_and_the_sum(seed):
    draw = random.Random(seed)
    events = [
        Event(draw.uniform(0.8, 3), draw.uniform(0.01, 0.3), "poisson", draw.randint(1, 50)),
        Laplace(draw.uniform(3, 30), draw.randint(1, 5)),
        Approximate(draw.uniform(0, 0.5), 1e-8, draw.randint(1, 3)),
        Concentrated(draw.uniform(1e-4, 0.1), draw.randint(1, 3)),
    ]
    delta = 1e-5
    together = epsilon_of(events, delta)
    failing = sum(e.delta * e.rounds for e in events if isinstance(e, Approximate))
    share = (delta - failing) / 4
    for event in events:
        assert epsilon_of([event], delta) <= together * LOOSE
    apart = sum(
        epsilon_of([e], share + (e.delta * e.rounds if isinstance(e, Approximate) else 0))
        for e in events
    )
    assert together <= apart * LOOSE
    assert delta_of(events, together) == pytest.approx(delta, rel=0.02)


def test_zcdp_in_a_mix_is_at_least_as_good_as_every_split_of_delta():
    gaussian, rest = Event(1.0, 0.02, "poisson", 300), Concentrated(0.05)
    mixed = epsilon_of([gaussian, rest], 1e-6)
    for share in (0.01, 0.1, 0.5, 0.9):
        split = epsilon_of([gaussian], share * 1e-6) + epsilon_of([rest], (1 - share) * 1e-6)
        assert mixed <= split
    # and a Gaussian that is told by its rho alone costs no less than the Gaussian
    assert epsilon_of([gaussian, Event(1 / math.sqrt(0.1))], 1e-6) <= mixed * LOOSE


def test_events_add_up_in_any_order_and_however_they_are_cut():
    parts = [Laplace(5.0, 2), Event(2.0, 0.1, "poisson", 3), Laplace(5.0), Event(9.0)]
    whole = [Event(9.0), Laplace(5.0, 3), Event(2.0, 0.1, "poisson", 3)]
    assert epsilon_of(parts, 1e-6) == pytest.approx(epsilon_of(whole, 1e-6), rel=1e-9)


# ---- groups


@pytest.mark.parametrize(("k", "value"), [(1, 1.1988), (2, 2.532), (3, 3.94)])
def test_a01_groups_are_exact_under_poisson(k, value):
    event = Event(1.0, 0.0064, "poisson", 782)
    found = epsilon_of([event], 1e-6, group=k)
    assert found == pytest.approx(value, abs=2e-3 * value)


def test_a01_a_plan_asks_for_its_group():
    plan = fldp.PrivacyPlan(
        noise_multiplier=1.0, delta=1e-6, rounds=782, clients=10**4, cohort=64.0,
        sampling="poisson", trust="central", adjacency="add-or-remove", accountant="pld",
        target_epsilon=8.0,
    )  # fmt: skip
    assert plan.group(2) == pytest.approx(2.532, abs=2e-3)
    assert plan.group(3) == pytest.approx(3.94, abs=5e-3)
    assert plan.group(1) == pytest.approx(plan.epsilon(), rel=1e-9)


@pytest.mark.slow
def test_a01_groups_against_dp_accounting():
    distributions = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    for q, z, rounds, k, delta in ((0.0064, 1.0, 200, 3, 1e-6), (0.2, 4.0, 20, 4, 1e-5)):
        weights = [math.comb(k, j) * q**j * (1 - q) ** (k - j) for j in range(k + 1)]
        one = distributions.from_mixture_gaussian_mechanism(
            z, list(range(k + 1)), weights, value_discretization_interval=2e-3
        )
        theirs = one.self_compose(rounds).get_epsilon_for_delta(delta)
        ours = epsilon_of([Event(z, q, "poisson", rounds)], delta, group=k)
        # their grid is coarse here, so that they are a little higher
        assert theirs * (1 - 5e-3) <= ours <= theirs * LOOSE


@pytest.mark.parametrize(
    ("event", "adjacency"),
    [
        (Event(2.0, 0.1, "poisson", 20), "add-or-remove"),
        (Event(2.0, 0.1, "poisson", 20), "replace-one"),
        (Event(2.0, 0.1, "poisson", 20, 100, cap=15), "zero-out"),
        (Event(2.0, 0.1, "fixed", 20, 100), "replace-one"),
        (Event(2.0, 0.1, "fixed", 20, 100, known=True), "zero-out"),
        (Event(9.0, rounds=20), "add-or-remove"),
        (Laplace(9.0, 5), "add-or-remove"),
        (Approximate(0.1, 1e-9, 5), "add-or-remove"),
        (Concentrated(0.01, 5), "add-or-remove"),
    ],
)
def test_a01_every_event_has_a_group_bound_that_grows_and_stays_below_the_worst(event, adjacency):
    values = [epsilon_of([event], 1e-5, adjacency, group=k) for k in (1, 2, 4)]
    assert values[0] < values[1] < values[2]
    if isinstance(event, Event):
        doubled = adjacency == "replace-one" or event.cap is not None
        mu = (2 if doubled else 1) * 4 * math.sqrt(event.rounds) / event.noise_multiplier
        assert values[2] <= gaussian_epsilon(mu, 1e-5) * (1 + 1e-6)


@few
@given(st.floats(0.6, 4), st.floats(0.01, 0.5), st.integers(1, 40), st.integers(2, 4))
def test_a01_a_group_is_no_worse_than_its_members_one_after_another(z, q, rounds, k):
    """Group privacy from epsilon alone: (k epsilon, delta (e^(k epsilon) - 1)/(e^epsilon - 1))."""
    event = Event(z, q, "poisson", rounds)
    one = epsilon_of([event], 1e-12)
    growth = math.expm1(min(k * one, 600)) / max(math.expm1(one), 1e-300) if one else k
    delta = min(0.5, growth * 1e-12)
    assert epsilon_of([event], delta, group=k) <= k * one * LOOSE + 1e-9


def test_a01_groups_that_make_no_sense_are_refused():
    event = Event(1.0, 0.5, "poisson", 3, clients=4)
    for group, words in ((0, "group is 0"), (5, "group is 5 of 4 clients"), (1001, "at most 1000")):
        with pytest.raises(ValueError, match=words):
            epsilon_of([event], 1e-5, group=group)
    with pytest.raises(ValueError, match="no groups"):
        epsilon_of([event], 1e-5, accountant="rdp", group=2)


# ---- questions that were refused or took long


@pytest.mark.parametrize(
    ("z", "q", "rounds", "epsilon"),
    [(1.0, 1e-3, 100, 0.0838), (0.3, 0.01, 50, 0.0), (0.2, 0.1, 10, 0.0), (0.9, 1e-4, 1000, 0.01)],
)
def test_a02_delta_questions_have_an_answer(z, q, rounds, epsilon):
    event = Event(z, q, "poisson", rounds)
    delta = delta_of([event], epsilon)
    assert 0 < delta < 1
    if epsilon:
        assert epsilon_of([event], delta) == pytest.approx(epsilon, rel=2e-3)
    else:
        assert epsilon_of([event], delta * 1.01) == 0.0
        assert epsilon_of([event], delta * 0.95) > 0


@pytest.mark.parametrize("delta", [1e-30, 1e-100])
def test_p13_delta_inverts_epsilon_at_tiny_values(delta):
    event = Event(1.0, 0.1, "poisson", 3)
    epsilon = epsilon_of([event], delta)
    assert math.log(delta_of([event], epsilon)) == pytest.approx(math.log(delta), rel=1e-3)
    assert delta_of([event], 10 * epsilon) >= 1e-300


def test_p13_below_the_least_delta_stands_the_least():
    assert delta_of([Event(5.0, 0.1, "poisson", 3)], 700.0) == 1e-300
    assert delta_of([Event(5.0)], 700.0) == 1e-300


# ---- values at the ends


def test_a07_the_ends_of_delta_rate_and_epsilon():
    event = Event(1.0, 0.1, "poisson", 10)
    assert epsilon_of([event], 0.0) == math.inf
    assert epsilon_of([event], 1.0) == 0.0
    assert epsilon_of([], 0.0) == epsilon_of([], 1.0) == delta_of([], 0.0) == 0.0
    nobody = Event(1.0, 0.0, "poisson", 10)
    assert epsilon_of([nobody], 1e-5) == 0.0
    assert delta_of([nobody], 0.0) == 0.0
    assert epsilon_of([nobody, event], 1e-5) == epsilon_of([event], 1e-5)
    assert epsilon_of([Approximate(0.0, 0.0)], 0.0) == 0.0
    assert epsilon_of([Approximate(0.3, 0.0), Laplace(4.0, 2)], 0.0) == pytest.approx(0.8)
    assert delta_of([Approximate(0.3, 0.0), Laplace(4.0, 2)], 0.8) == 0.0
    certain, sure = Event(2.0, 1.0, "poisson", 10), Event(2.0, rounds=10)
    assert epsilon_of([certain], 1e-5) == epsilon_of([sure], 1e-5)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: epsilon_of([], -0.1), "delta is -0.1"),
        (lambda: epsilon_of(None, 1e-5), "events is None"),
        (lambda: epsilon_of([1.0], 1e-5), "events hold 1.0"),
        (lambda: epsilon_of([Event(1.0)], 1e-5, "add"), "adjacency is 'add'"),
        (lambda: epsilon_of([Event(1.0)], 1e-5, accountant=3), "accountant is 3"),
        (lambda: delta_of([Event(1.0)], math.inf), "epsilon is inf"),
        (lambda: delta_of([Event(1.0)], math.nan), "epsilon is nan"),
        (lambda: epsilon_of([Laplace(1.0)], 1e-5, accountant="rdp"), "Gaussian events"),
        (
            lambda: epsilon_of(
                [Event(1.0, 0.1, "poisson", known=True)], 1e-5, "zero-out", accountant="rdp"
            ),
            "known participation",
        ),
    ],
)
def test_a06_what_cannot_be_asked_is_refused_in_words(ask, words):
    with pytest.raises(ValueError, match=words):
        ask()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a06_wild_mixtures_give_a_bound_or_an_honest_error(seed):
    """Extreme values of every kind together: no warning, no raw error, no NaN."""
    draw = random.Random(seed)

    def wild(low, high):
        return 10 ** draw.uniform(low, high)

    for _ in range(12):
        n = int(wild(0.5, 5))
        makers = [
            lambda: Event(wild(-9, 12), rounds=int(wild(0, 9))),
            lambda: Event(wild(-1, 3), wild(-8, 0), "poisson", int(wild(0, 5))),
            lambda n=n: Event(wild(-1, 3), 1 / n, "fixed", int(wild(0, 3)), n),
            lambda n=n: Event(wild(-1, 3), wild(-3, 0), "poisson", int(wild(0, 3)), n, n // 2 + 1),
            lambda: Event(wild(-1, 2), wild(-4, 0), "poisson", int(wild(0, 4)), known=True),
            lambda: Laplace(wild(-6, 9), int(wild(0, 3))),
            lambda: Approximate(wild(-5, 3), draw.choice([0.0, wild(-12, -2)]), int(wild(0, 2))),
            lambda: Concentrated(wild(-12, 5), int(wild(0, 2))),
        ]
        events = [draw.choice(makers)() for _ in range(draw.randint(1, 3))]
        delta = wild(-15, -0.1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = epsilon_of(events, delta, "replace-one", group=draw.choice([1, 1, 2]))
        except ValueError as error:
            assert "use more noise" in str(error) or "group is" in str(error)  # noqa: PT017
        else:
            assert found >= 0


def test_so_little_noise_that_participation_shows_has_the_closed_form():
    event = Event(5e-4, 0.1, "poisson", 20)
    known = Event(5e-4, 0.1, "poisson", 20, known=True)
    assert epsilon_of([event], 1e-5) == epsilon_of([known], 1e-5, "zero-out")
    near = epsilon_of([Event(1.001e-3, 0.1, "poisson", 20)], 1e-5)
    shown = epsilon_of([Event(1.001e-3, 0.1, "poisson", 20, known=True)], 1e-5, "zero-out")
    assert near == pytest.approx(shown, rel=1e-3)


def test_beyond_the_grid_a_looser_bound_stands_in(monkeypatch):
    event = Event(1.0, 0.01, "poisson", 100)
    exact, exact_delta = epsilon_of([event], 1e-5), delta_of([event], 1.0)

    def nothing(*args, **kwargs):
        raise pld.OutOfReach("no answer: use more noise")

    monkeypatch.setattr(account.pld, "solve", nothing)
    assert exact < epsilon_of([event], 1e-5) < 2 * exact
    assert exact_delta < delta_of([event], 1.0) < 100 * exact_delta


@pytest.mark.slow
def test_delta_never_forgets_a_step_that_may_fail():
    events = [Event(5.0, 0.01, "poisson", 2), Approximate(0.1, 1e-6)]
    for epsilon in (1.0, 5.0, 50.0):
        assert delta_of(events, epsilon) >= 1e-6
    shown = [Event(5e-4, 0.01, "poisson", 2), Laplace(3.0)]
    assert delta_of(shown, 1e7) > 0
