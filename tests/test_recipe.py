import json
import math

import pytest
from conftest import ground_truth

from fldp.recipe import _opacus_rdp, explain_recipe, opacus_noise_multiplier

A = {
    "epsilon": 1, "delta": 1e-5, "rounds": 15, "batch_size": 16, "clients": 10, "records": 50_000,
    "local_epochs": 2,
}  # fmt: skip
B = {
    "epsilon": 8, "delta": 1e-5, "rounds": 100, "batch_size": 32, "clients": 100,
    "records": 60_000, "local_epochs": 5, "user_sample_rate": 0.1,
}  # fmt: skip
C = {
    "epsilon": 8, "delta": 1e-5, "rounds": 500, "batch_size": 20, "clients": 3400,
    "records": 340_000, "user_sample_rate": 100 / 3400,
}  # fmt: skip
CASES = {
    "recipe_A_DynamicPFL_defaults": A | {"delta": 0.1},
    "recipe_A2_DynamicPFL_delta1e-5": A,
    "recipe_A3_eps8": A | {"epsilon": 8},
    "recipe_B_N100_u0.1": B,
    "recipe_B2_N100_u1": B | {"user_sample_rate": 1.0},
    "recipe_C_N3400_u": C,
}
TRUTH = {e["name"]: e["value"] for e in ground_truth("issue669_recipe")}


def every(diagnosis, adjacency):
    """The ε for whoever sees every model, and those for the server that reads messages."""
    rows = [f for f in diagnosis.findings if f["adjacency"] == adjacency]
    central = next(f for f in rows if f["trust"] == "central")
    return central["epsilon"], [f["epsilon"] for f in rows if f["trust"] == "local"]


@pytest.mark.parametrize("name", CASES)
def test_ground_truth(name):
    truth, arguments = TRUTH[name], CASES[name]
    for delta in (arguments["delta"], 1e-5):
        found = explain_recipe(**arguments, true_delta=delta)
        assert found.noise_multiplier == truth["recipe_z"]
        assert found.sample_rate == pytest.approx(truth["recipe_q"])
        assert found.steps == pytest.approx(truth["recipe_steps"])
        assert found.effective_noise_multiplier == pytest.approx(truth["z_eff_central_equal"])
        values = truth[f"delta={delta:g}"]
        zero, messages = every(found, "zero-out")
        one, doubled = every(found, "replace-one")
        # The reference rounds losses up, which adds 0.1 % at ε = 870.
        assert zero == pytest.approx(values["client_zeroout_central_q=u"], rel=2e-3)
        assert one == pytest.approx(values["client_replace_or_record_central_q=u"], rel=2e-3)
        assert messages[0] == pytest.approx(values["local_view_single_message"], rel=1e-6)
        assert doubled[0] == pytest.approx(values["local_view_single_message_replace"], rel=1e-6)
        many = next(v for k, v in values.items() if k.startswith("local_view_zeroout"))
        assert messages[1] == pytest.approx(many, rel=1e-6)


@pytest.mark.parametrize("case", ["A", "A3", "B", "B2", "C"])
def test_noise_that_the_claim_takes(case):
    name = {"A": "recipe_A2_DynamicPFL_delta1e-5"}.get(case)
    name = name or next(n for n in CASES if n.startswith(f"recipe_{case}_"))
    needed = explain_recipe(**CASES[name]).needed
    for adjacency, key in (("zero-out", "ADD_OR_REMOVE_ONE"), ("replace-one", "REPLACE_ONE")):
        assert needed[adjacency] == pytest.approx(TRUTH[f"recipe_needed_{case}_{key}"], rel=1e-3)


def test_heaviest_client_pays_for_the_weights():
    found = explain_recipe(**A | {"epsilon": 8}, weights=[9] + [1] * 9)
    heavy = next(f for f in found.findings if f["unit"].startswith("client of weight"))
    assert heavy["unit"] == "client of weight 0.5"
    assert heavy["epsilon"] == pytest.approx(TRUTH["recipe_het"]["eps_big"], rel=1e-3)


def test_client_sizes_give_clients_records_and_weights():
    sizes = [45_000] + [625] * 8
    found = explain_recipe(epsilon=8, delta=1e-5, rounds=15, batch_size=16, client_sizes=sizes)
    assert any("weight 0.9" in f["unit"] for f in found.findings)
    equal = explain_recipe(**A | {"clients": None, "records": None}, client_sizes=[5000] * 10)
    assert equal.to_dict() == explain_recipe(**A).to_dict()


@pytest.mark.slow
def test_noise_multiplier_and_epsilon_are_those_of_opacus():
    from opacus.accountants import RDPAccountant
    from opacus.accountants.utils import get_noise_multiplier

    settings = (
        (3, 1e-5, 0.01, 1000),
        (1, 0.1, 3e-4, 900),
        (5, 1e-6, 1, 20),
        (8, 1e-5, 0.1 * 32 / 60_000, 93_750),
    )
    for epsilon, delta, q, steps in settings:
        theirs = get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=q, steps=steps
        )
        assert opacus_noise_multiplier(epsilon, delta, q, steps) == theirs
        accountant = RDPAccountant()
        accountant.history = [(theirs, q, steps)]
        assert _opacus_rdp(q, theirs, steps, delta) == pytest.approx(
            accountant.get_epsilon(delta), rel=1e-6
        )


def test_fixed_size_draws_are_said_to_cost_more():
    found = explain_recipe(**B)
    fixed = next(f for f in found.findings if "fixed size" in f["release"])
    poisson = every(found, "replace-one")[0]
    assert fixed["epsilon"] > poisson
    assert "counted twice" in found.findings[0]["why"]
    assert not any("fixed size" in f["release"] for f in explain_recipe(**A).findings)


def test_large_delta_is_named():
    assert "1/N" in explain_recipe(**A | {"delta": 0.1}).findings[0]["why"]
    assert "published" not in explain_recipe(**A).findings[0]["why"]


def test_text_html_and_json():
    found = explain_recipe(**A)
    assert "claims ε = 1, δ = 1e-05" in " ".join(str(found).split())
    assert "28.9" in str(found)
    assert "<pre>" in found._repr_html_()
    again = json.loads(json.dumps(found.to_dict()))
    assert again["findings"][0]["epsilon"] == found.findings[0]["epsilon"]
    assert all(math.isfinite(f["epsilon"]) for f in found.findings)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epsilon": 0}, "epsilon is 0"),
        ({"delta": 1}, "delta is 1"),
        ({"clients": None}, "clients is None"),
        ({"records": 0}, "records is 0"),
        ({"batch_size": 10**6}, "batch_size 1000000 of 50000"),
        ({"user_sample_rate": 2}, "user_sample_rate is 2"),
        ({"weights": [1, 2]}, "2 weights for 10 clients"),
        ({"weights": [0] + [1] * 9}, "every weight is 0"),
        ({"client_sizes": [1, 2]}, "client_sizes has 2 sizes"),
        ({"epsilon": 0.01}, "below what Opacus"),
    ],
)
def test_bad_input_is_named(change, match):
    with pytest.raises(ValueError, match=match):
        explain_recipe(**A | change)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1e7, 1e308])
def test_a06_an_epsilon_out_of_reach_is_refused_without_filling_the_memory(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is"):
        explain_recipe(epsilon=epsilon, delta=1e-4, rounds=3, clients=20, records=200, batch_size=5)
