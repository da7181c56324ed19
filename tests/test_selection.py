"""accounting.selection: the price of the best of several runs, against closed forms and a peer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

import fldp
from fldp.accounting import Approximate, Event, Laplace, epsilon_of, selected_epsilon, selection

NAMES = selection.DISTRIBUTIONS
RUN = [Event(4.0, rounds=2)]
DELTA = 1e-5
# Their tests use the same orders as ours.
ORDERS = list(selection._ORDERS)


def pgf_slope(x: np.ndarray, runs: float, name: str) -> np.ndarray:
    """The derivative of the law's probability generating function: of the best of K, by chances."""
    if name == "poisson":
        return runs * np.exp(-runs * (1 - x))
    gamma = math.exp(selection._log_gamma(runs, {"geometric": 1.0, "logarithmic": 0.0}[name]))
    if name == "geometric":
        return gamma / (1 - (1 - gamma) * x) ** 2
    return (1 - gamma) / (1 - (1 - gamma) * x) / -math.log(gamma)


def exact_delta(mu: float, epsilon: float, runs: float, name: str) -> float:
    """δ of publishing the largest of K draws of N(0, 1) against that of N(mu, 1), by quadrature."""

    def excess(sign: float) -> float:
        def at(y: float) -> float:
            worlds = [
                float(pgf_slope(np.array(stats.norm.cdf(y - shift)), runs, name))
                * stats.norm.pdf(y - shift)
                for shift in (0.0, mu)
            ]
            ours, theirs = worlds if sign > 0 else worlds[::-1]
            return max(0.0, ours - math.exp(epsilon) * theirs)

        return float(integrate.quad(at, -9, 9 + mu, limit=400, points=[0.0, mu])[0])

    return max(excess(1.0), excess(-1.0))


@pytest.mark.parametrize(
    ("name", "known"), [("geometric", 3.05255), ("logarithmic", 2.54841), ("poisson", 2.74926)]
)
def test_the_best_of_ten_runs_has_a_known_price(name: str, known: float) -> None:
    assert selected_epsilon(RUN, DELTA, 10, name) == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("runs", [1.5, 10.0, 100.0])
@pytest.mark.parametrize(("name", "shape"), [("geometric", 1.0), ("logarithmic", 0.0)])
def test_divergences_are_those_of_dp_accounting(name: str, shape: float, runs: float) -> None:
    pytest.importorskip("dp_accounting")
    from dp_accounting import dp_event, rdp

    sampled = dp_event.PoissonSampledDpEvent(0.25, dp_event.GaussianDpEvent(8.0))
    event = dp_event.SelfComposedDpEvent(sampled, 60)
    orders = [float(n) for n in range(2, 60)]
    theirs = rdp.RdpAccountant(orders).compose(dp_event.RepeatAndSelectDpEvent(event, runs, shape))
    one_run = fldp.accounting.renyi([Event(8.0, 0.25, "poisson", rounds=60)], orders)
    found = selection._negative_binomial(np.array(orders), one_run, runs, shape)
    # divergences grow with the order, so a larger order's holds for a smaller one; theirs say so
    grown = np.minimum.accumulate(found[::-1])[::-1]
    assert grown == pytest.approx(np.array(theirs._rdp), rel=1e-6)


@pytest.mark.parametrize(("name", "shape"), [("geometric", 1.0), ("logarithmic", 0.0)])
def test_epsilons_are_those_of_dp_accounting(name: str, shape: float) -> None:
    pytest.importorskip("dp_accounting")
    from dp_accounting import dp_event, rdp

    event = dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(4.0), 2)
    theirs = rdp.RdpAccountant(ORDERS).compose(dp_event.RepeatAndSelectDpEvent(event, 10, shape))
    found = selected_epsilon(RUN, DELTA, 10, name)
    assert found == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-6)


def test_a_poisson_number_of_runs_costs_no_more_than_in_dp_accounting() -> None:
    """They bound the theorem's δ by the divergences; ours is exact, and so is the formula."""
    pytest.importorskip("dp_accounting")
    from dp_accounting import dp_event, rdp
    from dp_accounting.rdp import rdp_privacy_accountant as module

    event = dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(4.0), 2)
    selected = dp_event.RepeatAndSelectDpEvent(event, 10, math.inf)
    theirs = rdp.RdpAccountant(ORDERS).compose(selected)
    assert selected_epsilon(RUN, DELTA, 10, "poisson") < theirs.get_epsilon(DELTA)
    # with their δ the divergences are theirs
    one_run = fldp.accounting.renyi(RUN, ORDERS)
    at = [math.log1p(1 / (order - 1)) for order in ORDERS]
    deltas = np.array([module.compute_delta(ORDERS, one_run, epsilon)[0] for epsilon in at])
    found = selection._poisson(selection._ORDERS, one_run, deltas, 10.0)
    assert found == pytest.approx(np.array(theirs._rdp), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("runs", [2.0, 10.0])
@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_the_largest_of_noisy_scores_stays_within_the_promise(
    name: str, runs: float, sigma: float
) -> None:
    """The exact δ of one way to select; to claim the ε of one run for it is found out."""
    event = [Event(sigma)]
    promised = selected_epsilon(event, DELTA, runs, name)
    assert exact_delta(1 / sigma, promised, runs, name) <= DELTA
    one_run = epsilon_of(event, DELTA)
    if runs > 2:
        assert exact_delta(1 / sigma, one_run, runs, name) > 2 * DELTA


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("runs", [2.0, 50.0])
def test_the_best_of_many_random_answers_stays_within_the_promise(
    epsilon: float, runs: float
) -> None:
    """Yes counts more than no: a no is published if all answers were no."""
    p = 1 / (1 + math.exp(-epsilon))
    gamma = 1 / runs

    def all_no(no: float) -> float:
        return gamma * no / (1 - (1 - gamma) * no)

    exact = math.log(all_no(p) / all_no(1 - p))
    found = selected_epsilon([Approximate(epsilon, 0.0)], 1e-9, runs, "geometric")
    assert epsilon < exact <= found <= 3 * epsilon + 0.5


@pytest.mark.parametrize(("name", "times"), [("geometric", 3.0), ("logarithmic", 2.0)])
def test_three_answers_need_nearly_all_of_the_promise(name: str, times: float) -> None:
    """A rare middle answer below a common best one: without any term of Theorem 2 this fails."""
    epsilon, runs, best, middle = 1.0, 1e4, 0.3, 1e-3
    less, more = best * math.exp(-epsilon), middle * math.exp(epsilon)
    gamma = math.exp(selection._log_gamma(runs, {"geometric": 1.0, "logarithmic": 0.0}[name]))

    def chance(above: float, own: float) -> float:
        """That the middle one is the best of all."""
        high, low = 1 - above, 1 - above - own
        if name == "geometric":
            return gamma * own / (1 - (1 - gamma) * high) / (1 - (1 - gamma) * low)
        return math.log((1 - (1 - gamma) * low) / (1 - (1 - gamma) * high)) / -math.log(gamma)

    exact = math.log(chance(less, more) / chance(best, middle))
    assert exact > 0.95 * times * epsilon
    delta = 1e-9
    assert chance(less, more) > 1e3 * delta  # so δ has no room for this answer
    assert exact <= selected_epsilon([Approximate(epsilon, 0.0)], delta, runs, name)


def test_a_fixed_number_of_runs_is_refused_and_adding_up_is_named() -> None:
    with pytest.raises(ValueError, match=r"fixed number of runs.*epsilon_of"):
        selected_epsilon(RUN, DELTA, 10, "fixed")


@pytest.mark.parametrize("name", NAMES)
def test_more_runs_cost_more_and_one_run_no_less_than_it_spends(name: str) -> None:
    found = [selected_epsilon(RUN, DELTA, runs, name) for runs in (1, 2, 5, 20)]
    assert found == sorted(found)
    assert found[0] >= epsilon_of(RUN, DELTA)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geometric", "logarithmic"])
def test_one_run_costs_what_it_spends_by_its_divergences(name: str) -> None:
    rdp = epsilon_of(RUN, DELTA, accountant="rdp")
    assert selected_epsilon(RUN, DELTA, 1, name) == pytest.approx(rdp, rel=1e-2)


def test_the_mean_of_the_law_is_the_one_that_was_asked_for() -> None:
    for runs in (1.01, 3.0, 1e4):
        gamma = math.exp(selection._log_gamma(runs, 0.0))
        assert (1 / gamma - 1) / -math.log(gamma) == pytest.approx(runs, rel=1e-6)
        assert math.exp(selection._log_gamma(runs, 1.0)) == pytest.approx(1 / runs)


def test_adjacency_and_group_reach_the_divergences() -> None:
    assert selected_epsilon(RUN, DELTA, 5) < selected_epsilon(RUN, DELTA, 5, group=2)
    twice = selected_epsilon(RUN, DELTA, 5, adjacency="replace-one")
    assert twice == pytest.approx(selected_epsilon([Event(2.0, rounds=2)], DELTA, 5))


def test_what_has_no_divergence_has_no_price() -> None:
    assert selected_epsilon([Approximate(1.0, 1e-6)], DELTA, 3) == math.inf
    assert selected_epsilon([Laplace(2.0)], DELTA, 3) < 2.0
    assert selected_epsilon([], DELTA, 3, "poisson") >= 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"distribution": "binomial"}, "distribution"),
        ({"mean_runs": 0.5}, "mean_runs"),
        ({"mean_runs": math.nan}, "mean_runs"),
        ({"mean_runs": True}, "mean_runs"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"events": [1]}, "events"),
        ({"adjacency": "any"}, "adjacency"),
    ],
)
def test_what_the_theorem_does_not_cover_is_refused(change: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"events": RUN, "delta": DELTA, "mean_runs": 10}
    with pytest.raises(ValueError, match=told):
        selected_epsilon(**given | change)


def test_the_best_order_of_a_poisson_number_is_not_overlooked() -> None:
    """The search stops early; all orders together give the same, so none is overlooked."""
    run = [Event(2.0, 0.25, "poisson", rounds=60)]
    orders = selection._ORDERS[::10]
    one_run = fldp.accounting.renyi(run, orders)
    deltas = fldp.accounting.privacy_curve(run, np.log1p(1 / (orders - 1)))
    all_of_them = selection._poisson(orders, one_run, deltas, 10.0)
    rest = np.log1p(-1 / orders) - (math.log(DELTA) + np.log(orders)) / (orders - 1)
    assert selected_epsilon(run, DELTA, 10, "poisson") <= (all_of_them + rest).min()
    assert selected_epsilon(run, DELTA, 10, "poisson") >= 0.9 * (all_of_them + rest).min()
