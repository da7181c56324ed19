import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp import accounting
from fldp.plan import participations
from fldp.plan.records import _grouped, calibrate_records

BASE = {"epsilon": 8.0, "delta": 1e-5, "rounds": 20, "local_epochs": 1, "batch_size": 16}


def test_worst_client_sets_the_noise():
    plan = calibrate_records(**BASE, client_sizes=[1600, 10, 160, 10])
    assert plan.epsilons[1] == plan.epsilons[3] == plan.epsilons.max()
    assert 0.999 * 8 <= plan.epsilons.max() <= 8
    assert plan.epsilons[0] < plan.epsilons[2] < 8
    assert plan.steps_per_epoch.tolist() == [100, 1, 10, 1]
    assert plan.sampling_rates.tolist() == [0.01, 1, 0.1, 1]


@pytest.mark.slow
def test_agrees_with_opacus_where_it_can_say_it():
    from opacus.accountants.utils import get_noise_multiplier

    ours = calibrate_records(**BASE, client_sizes=[1600], accountant="rdp")
    theirs = get_noise_multiplier(
        target_epsilon=8.0, target_delta=1e-5, sample_rate=16 / 1600, epochs=20, accountant="rdp"
    )
    assert ours.noise_multiplier == pytest.approx(theirs, rel=2e-3)
    tight = calibrate_records(**BASE, client_sizes=[1600])
    assert tight.noise_multiplier < ours.noise_multiplier


@pytest.mark.slow
def test_each_client_is_accounted_for_the_steps_it_runs():
    # Opacus' PRV accountant, told each client's own steps and rate, is at most 0.02 above the
    # truth. A step more or less per epoch, or the rate of the pooled records, lies outside.
    from opacus.accountants import PRVAccountant

    sizes, options = [17, 40, 100, 400], BASE | {"rounds": 10, "local_epochs": 2, "epsilon": 20.0}
    plan = calibrate_records(**options, client_sizes=sizes)

    def theirs(steps, rate):
        accountant = PRVAccountant()
        accountant.history = [(plan.noise_multiplier, rate, 10 * 2 * steps)]
        return accountant.get_epsilon(1e-5)

    for n, spent in zip(sizes, plan.epsilons, strict=True):
        steps = math.ceil(n / 16)
        upper = theirs(steps, 1 / steps)
        assert upper - 0.03 <= spent <= upper + 1e-3
        if steps > 2:
            assert theirs(steps - 1, 1 / steps) < spent - 0.03
        assert theirs(steps, 16 / sum(sizes)) < spent - 0.03


def test_batch_larger_than_a_client_is_one_full_step():
    plan = calibrate_records(**BASE, client_sizes=[3])
    exact = accounting.noise_multiplier(epsilon=8, delta=1e-5, rounds=20, sampling="none")
    assert plan.noise_multiplier == pytest.approx(exact, rel=1e-6)


def test_a_broken_last_batch_is_a_step():
    plan = calibrate_records(**BASE, client_sizes=[17, 32])
    assert plan.steps_per_epoch.tolist() == [2, 2]
    assert plan.epsilons[0] == plan.epsilons[1]


def test_one_noise_per_client_meets_the_target_for_each():
    plan = calibrate_records(**BASE, client_sizes=[10, 160, 1600], per_client=True)
    for z, steps in zip(plan.noise_multipliers, plan.steps_per_epoch, strict=True):
        spent = accounting.epsilon(
            noise_multiplier=z, delta=1e-5, rounds=20 * int(steps), sampling_rate=1 / steps
        )
        assert spent <= 8
    assert plan.noise_multiplier == plan.noise_multipliers.max() == plan.noise_multipliers[0]


def test_client_sampling_counts_participations_and_amplifies_no_step():
    always = calibrate_records(**BASE, client_sizes=[160])
    seldom = calibrate_records(**BASE, client_sizes=[160], client_sampling_rate=0.1)
    assert seldom.participations == participations(20, 0.1, 1e-6)
    exact = accounting.epsilon(
        noise_multiplier=seldom.noise_multiplier,
        delta=0.9e-5,
        rounds=seldom.participations * 10,
        sampling_rate=0.1,
    )
    assert exact == pytest.approx(seldom.epsilons[0])
    assert seldom.noise_multiplier < always.noise_multiplier
    served = calibrate_records(
        **BASE, client_sizes=[160], client_sampling_rate=0.1, participations=2
    )
    assert served.noise_multiplier < seldom.noise_multiplier


def exact(z, steps, rounds=20, delta=1e-5):
    return accounting.epsilon(
        noise_multiplier=z, delta=delta, rounds=rounds * steps, sampling_rate=1 / steps
    )


def spends(plan, rounds):
    return [exact(plan.noise_multiplier, int(s), rounds) for s in plan.steps_per_epoch]


@pytest.mark.parametrize(
    ("rounds", "epsilon"), [(1, 8.0), (1, 50.0), (2, 8.0), (2, 50.0), (3, 16.0), (10, 50.0)]
)
@pytest.mark.parametrize("per_client", [False, True])
def test_p02_no_client_spends_more_than_it_is_told(rounds, epsilon, per_client):
    sizes = [16, 20, 48, 64, 160, 1600]
    plan = calibrate_records(
        **BASE | {"rounds": rounds, "epsilon": epsilon}, client_sizes=sizes, per_client=per_client
    )
    for z, claimed, steps in zip(
        plan.noise_multipliers, plan.epsilons, plan.steps_per_epoch, strict=True
    ):
        assert exact(z, int(steps), rounds) <= claimed * (1 + 1e-9) <= epsilon * (1 + 1e-9)
    if not per_client:
        assert plan.epsilons.max() >= 0.999 * epsilon


def test_p02_the_worst_client_need_not_have_the_fewest_steps():
    plan = calibrate_records(**BASE | {"rounds": 1}, client_sizes=[20, 48, 64])
    assert plan.epsilons.argmax() == 1
    # the noise that the client with the fewest steps alone would take gives the others more
    alone = calibrate_records(**BASE | {"rounds": 1}, client_sizes=[20])
    assert exact(alone.noise_multiplier, 3, 1) > 8 * 1.002
    large = calibrate_records(**BASE | {"rounds": 1, "epsilon": 50.0}, client_sizes=[16, 1600, 160])
    assert large.epsilons.argmax() == 2


@pytest.mark.slow
def test_p02_the_figures_of_dp_accounting():
    distributions = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    for z, sizes in ((0.6002290722589745, (48, 64)), (None, (20, 48))):
        if z is None:
            plan = calibrate_records(**BASE | {"rounds": 1}, client_sizes=[20, 48, 64])
            z = plan.noise_multiplier
        for size in sizes:
            steps = math.ceil(size / 16)
            theirs = distributions.from_gaussian_mechanism(
                z, sampling_prob=1 / steps, value_discretization_interval=1e-4
            ).self_compose(steps).get_epsilon_for_delta(1e-5)  # fmt: skip
            assert exact(z, steps, 1) == pytest.approx(theirs, rel=1e-3)
    # at the noise that used to be given for epsilon = 8
    assert exact(0.6002290722589745, 3, 1) == pytest.approx(10.48, abs=0.01)
    assert exact(0.6002290722589745, 4, 1) == pytest.approx(10.24, abs=0.01)


def test_p02_one_participation_of_many_rounds():
    plan = calibrate_records(**BASE, client_sizes=[20, 48, 64], participations=1)
    once = calibrate_records(**BASE | {"rounds": 1}, client_sizes=[20, 48, 64])
    assert plan.noise_multiplier == once.noise_multiplier
    assert max(spends(plan, 1)) <= 8


@pytest.mark.slow
@given(st.integers(0, 10**6), st.sampled_from([(1, 8.0), (1, 40.0), (5, 2.0)]))
@settings(deadline=None, max_examples=4)
def test_p02_groups_of_step_counts_are_never_told_too_little(seed, run):
    rounds, epsilon = run
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(6, 1.5, 3000).astype(int) + 1
    plan = calibrate_records(
        **BASE | {"rounds": rounds, "epsilon": epsilon, "batch_size": 4}, client_sizes=sizes
    )
    assert plan.epsilons.max() <= epsilon
    for i in rng.integers(0, len(sizes), 5):
        steps = int(plan.steps_per_epoch[i])
        truth = exact(plan.noise_multiplier, steps, rounds)
        assert truth <= plan.epsilons[i] * (1 + 1e-3)
        assert plan.epsilons[i] <= truth * 1.15 + 1e-6


def test_step_counts_are_grouped_only_where_they_are_many():
    few = _grouped(np.arange(1, 101), 160)
    assert [(g.fewest, g.most) for g in few] == [(s, s) for s in range(1, 101)]
    many = _grouped(np.arange(1, 5001), 160)
    assert len(many) <= 160
    assert many[0] == (1, 1)  # a full batch is no sampling, and stays alone
    assert all(g.most <= 1.2 * g.fewest for g in many)
    assert [g.most + 1 for g in many[:-1]] == [g.fewest for g in many[1:]]


@pytest.mark.slow
def test_many_clients_in_one_call():
    sizes = np.random.default_rng(0).lognormal(5, 1.5, 100_000).astype(int) + 1
    plan = calibrate_records(**BASE | {"batch_size": 4}, client_sizes=sizes)
    assert plan.epsilons.shape == (100_000,)
    assert plan.epsilons.max() <= 8
    order = np.argsort(plan.steps_per_epoch)
    assert (np.diff(plan.epsilons[order]) <= 1e-9).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"client_sizes": []}, "client_sizes has shape"),
        ({"client_sizes": [[1, 2]]}, "client_sizes has shape"),
        ({"client_sizes": ["a"]}, "client_sizes has shape"),
        ({"client_sizes": [5, 0]}, "client 1 has size 0"),
        ({"client_sizes": [5, 2.5]}, "client 1 has size 2.5"),
        ({"client_sizes": [math.nan]}, "client 0 has size nan"),
        ({"client_sampling_rate": 1.5}, "client_sampling_rate is 1.5"),
        ({"client_sampling_rate": 0}, "client_sampling_rate is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"local_epochs": 0.5}, "local_epochs is 0.5"),
        ({"epsilon": -1}, "epsilon is -1"),
        ({"delta": 2}, "delta is 2"),
        ({"participations": 0}, "participations is 0"),
        ({"adjacency": "zero"}, "adjacency is 'zero'"),
        ({"accountant": "x"}, "accountant is 'x'"),
    ],
)
def test_bad_input_is_named(change, match):
    with pytest.raises(ValueError, match=match):
        calibrate_records(**BASE | {"client_sizes": [10]} | change)


def test_words_and_numbers():
    plan = calibrate_records(**BASE, client_sizes=[10, 160])
    text = " ".join(str(plan).split())
    assert "record level" in text
    assert "one z for all" in text
    assert "<pre>" in plan._repr_html_()
    assert plan.to_dict()["epsilons"] == plan.epsilons.tolist()


def test_no_record_is_promised_that_its_presence_is_hidden():
    """Sizes are public: the statement says zero-out, whichever name was given, at one number."""
    plan = calibrate_records(**BASE, client_sizes=[10, 160])
    older = calibrate_records(**BASE, client_sizes=[10, 160], adjacency="add-or-remove")
    other = calibrate_records(**BASE, client_sizes=[10, 160], adjacency="replace-one")
    assert older.to_dict() == plan.to_dict()
    assert older.noise_multiplier < other.noise_multiplier
    text = str(plan)
    assert "one record; zero-out: " in text
    assert "add-or-remove" not in text
    assert "number n of records" in text
    assert "one record; replace-one: " in str(other)
