import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fldp
from fldp.cli import main

CALIBRATE = shlex.split("calibrate --epsilon 8 --delta 1e-3 --rounds 60 --clients 480 --cohort 120")
EXPLAIN = shlex.split(
    "explain --epsilon 1 --delta 1e-5 --rounds 15 --clients 10 --records 50000 --batch-size 16 "
    "--local-epochs 2"
)


def run(capsys, argv):
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_calibrate_says_the_noise_and_what_it_means(capsys):
    code, out, err = run(capsys, CALIBRATE)
    plan = fldp.calibrate(epsilon=8, delta=1e-3, rounds=60, clients=480, cohort=120)
    assert (code, err) == (0, "")
    shown = float(out.split("z = ")[1].split("\n")[0])
    assert plan.noise_multiplier <= shown <= plan.noise_multiplier * (1 + 1e-5)
    assert plan.statement() in out


def test_a_reader_that_has_enough_is_no_error():
    source, end = os.pipe()
    os.close(source)
    command = [sys.executable, "-m", "fldp", *CALIBRATE]
    done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(end)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_of_every_command(capsys):
    plan = fldp.calibrate(epsilon=8, delta=1e-3, rounds=60, clients=480, cohort=120)
    found = json.loads(run(capsys, [*CALIBRATE, "--json"])[1])
    assert {k: found[k] for k in plan.to_dict()} == plan.to_dict()
    assert found["epsilon"] == plan.epsilon()
    assert found["cohort_known"] == plan.cohort_known()
    assert found["server_view"]["epsilon_mean"] > 12
    z = f"--noise-multiplier {plan.noise_multiplier} --delta 1e-3 --sampling-rate 0.25 --json"
    epsilon = json.loads(run(capsys, shlex.split(f"epsilon --rounds 60 {z}"))[1])
    assert epsilon["epsilon"] == plan.epsilon()
    rounds = json.loads(run(capsys, shlex.split(f"rounds --epsilon 8 {z}"))[1])
    assert rounds["rounds"] == 60
    explain = json.loads(run(capsys, [*EXPLAIN, "--json"])[1])
    assert explain["noise_multiplier"] == pytest.approx(0.85449, rel=1e-5)


def test_text_of_the_other_commands(capsys):
    mechanism = shlex.split("--delta 1e-5 --noise-multiplier 6.01")
    assert run(capsys, ["rounds", "--epsilon", "8", *mechanism])[1] == "rounds = 100\n"
    assert run(capsys, ["epsilon", "--rounds", "100", *mechanism])[1].startswith("epsilon = 7.98")
    assert "28.9" in run(capsys, EXPLAIN)[1]


@pytest.mark.parametrize("clients", [150, 160, 300])
def test_p12_printed_pairs_are_rounded_up(capsys, clients):
    plan = fldp.calibrate(epsilon=1, delta=clients**-1.1, rounds=10, clients=clients)
    argv = shlex.split(f"--rounds 10 --delta {clients**-1.1} --json")
    out = run(capsys, ["calibrate", "--epsilon", "1", "--clients", str(clients), *argv[:-1]])[1]
    epsilon, delta = map(float, out.split("rounds: (")[1].split(")")[0].split(","))
    assert (epsilon >= plan.epsilon(), delta >= plan.delta) == (True, True)
    z = str(0.99999 * plan.noise_multiplier)
    spent = ["epsilon", "--noise-multiplier", z, *argv]
    exact = json.loads(run(capsys, spent)[1])["epsilon"]
    assert float(run(capsys, spent[:-1])[1].removeprefix("epsilon = ")) >= exact


@pytest.mark.parametrize("trust", ["central", "distributed", "local"])
def test_p01_adjacency_follows_the_trust(capsys, trust):
    argv = [*CALIBRATE, "--trust", trust, "--json"]
    argv += ["--min-survivors", "90"] if trust == "distributed" else []
    found = json.loads(run(capsys, argv)[1])
    assert found["adjacency"] == ("add-or-remove" if trust == "central" else "zero-out")
    code, _, err = run(capsys, [*argv, "--adjacency", "add-or-remove"])
    assert code == (0 if trust == "central" else 2)
    assert ("adjacency='zero-out'" in err) == (trust != "central")


def test_the_old_name_of_min_survivors_works_for_one_version(capsys):
    argv = [*CALIBRATE, "--trust", "distributed", "--json"]
    code, out, err = run(capsys, [*argv, "--survivors", "90"])
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("warning: --survivors is --min-survivors now")
    assert (code, out, "") == run(capsys, [*argv, "--min-survivors", "90"])
    found = json.loads(out)
    assert found["min_survivors"] == found["survivors"] == 90


def test_delta_too_large_warns_in_one_line(capsys):
    code, _, err = run(capsys, [*CALIBRATE, "--delta", "0.01"])
    assert code == 0
    assert err.startswith("warning: delta is 0.01")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        ([*CALIBRATE, "--epsilon", "-1"], "epsilon is -1"),
        ([*CALIBRATE, "--cohort", "1000"], "cohort is 1000"),
        ([*CALIBRATE, "--trust", "distributed"], "min_survivors"),
        ([*CALIBRATE, "--trust", "nobody"], "invalid choice: 'nobody'"),
        ([*CALIBRATE, "--rounds", "many"], "invalid int value: 'many'"),
        (["calibrate"], "--epsilon"),
        (["epsilon", "--rounds", "1", "--delta", "1e-5", "--noise-multiplier", "0"], "noise"),
        (["dance"], "'dance'"),
    ],
)
def test_bad_input_exits_2_with_one_line(capsys, argv, match):
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert match in err


def test_no_arguments_print_help_that_can_be_acted_on(capsys):
    code, out, _ = run(capsys, [])
    assert code == 0
    for line in ("calibrate", "epsilon", "explain", "rounds", "examples:", "fldp calibrate --eps"):
        assert line in out


def test_help_of_calibrate_names_every_choice(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("--cohort", "poisson", "distributed", "replace-one", "--min-survivors", "--json"):
        assert word in out


@pytest.mark.slow
@pytest.mark.parametrize("argv", [CALIBRATE, EXPLAIN], ids=["calibrate", "explain"])
def test_nothing_heavy_is_loaded(argv):
    code = (
        "import sys; from fldp.cli import main; main(sys.argv[1:]);"
        "print([m for m in ('torch', 'scipy', 'opacus', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.slow
def test_w11_the_version_is_the_package_s_own(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"fldp {fldp.__version__}\n")
    script = Path(sys.executable).with_name("fldp")
    for command in ([sys.executable, "-m", "fldp"], [str(script)]):
        if not Path(command[0]).exists():
            continue  # fldp was found on the path, not installed
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"fldp {fldp.__version__}\n"


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "fldp"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "examples:" in done.stdout


def test_report_writes_a_record_and_a_label(capsys, tmp_path):
    plan = fldp.calibrate(epsilon=8, delta=1e-3, rounds=60, clients=480, cohort=120)
    path = tmp_path / "plan.json"
    path.write_text(run(capsys, [*CALIBRATE, "--json"])[1], encoding="utf-8")
    page = run(capsys, ["report", str(path), "--name", "Next word"])[1]
    assert page == plan.report(name="Next word").to_markdown() + "\n"
    path.write_text(plan.to_json(), encoding="utf-8")
    label = run(capsys, ["report", str(path), "--label", "--client", "phone"])[1]
    assert label == plan.report(client="phone").label() + "\n"
    found = json.loads(run(capsys, ["report", str(path), "--json", "--clip-norm", "1"])[1])
    assert found["settings"]["clip norm C"] == 1
    code, _, err = run(capsys, ["report", str(tmp_path / "none.json")])
    assert code == 2
    assert "is no plan in JSON" in err
    for text, words in (
        ('{"statement": 1}', "missing fields"),
        ("[" * 100_000, "is no plan in JSON"),
        ("[1]", "a plan is a dict"),
    ):
        path.write_text(text, encoding="utf-8")
        code, _, err = run(capsys, ["report", str(path)])
        assert code == 2
        assert words in err
