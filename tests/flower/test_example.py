"""examples/flower/: what a user copies runs, in memory, and sends what it should."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tomllib
import torch
from cryptography import x509

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from stand_in import Nodes, plan_of, quiet, spent

import fldp
from fldp.flower.deployment import _OPERATORS
from fldp.flower.nodes import Roster

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "flower"
PATCH = APP / "quickstart" / "private.patch"
UPSTREAM = ROOT / "tests" / "data" / "quickstart_pytorch" / "server_app.py.txt"
CONFIG = tomllib.loads((APP / "pyproject.toml").read_text())


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the app, and of what stands beside it."""
    monkeypatch.syspath_prepend(str(APP))
    import credentials
    import deploy
    import processes
    from digits import client_app, server_app, task

    return SimpleNamespace(
        client=client_app,
        server=server_app,
        task=task,
        keys=credentials,
        deploy=deploy,
        processes=processes,
    )


def context(node: int = 0, nodes: int = 40) -> Context:
    config = {"partition-id": node, "num-partitions": nodes}
    return Context(1, node, config, RecordDict(), dict(CONFIG["tool"]["flwr"]["app"]["config"]))


def operator(patch: pytest.MonkeyPatch, folder: Path, plan: fldp.PrivacyPlan) -> None:
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    names = {"PLAN": "plan.json", "LEDGER": "ledger.jsonl", "CHECKPOINT": "run.pt"}
    for name, file in names.items():
        patch.setenv(f"FLDP_{name}", str(folder / file))


def devices(app: SimpleNamespace, count: int = 40) -> Nodes:
    """The app's own devices."""

    def answer(node: int, message: Message) -> RecordDict:
        return app.client.app(message, context(node, count)).content

    return Nodes(range(count), answer)


@pytest.mark.slow
def test_it_runs_to_the_end_of_the_plan_and_no_further(app, tmp_path, monkeypatch) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=3, clients=40)
    operator(monkeypatch, tmp_path, plan)
    nodes = devices(app)
    app.server.app(nodes, context())
    assert spent(tmp_path) == len(nodes.asked) == 3
    app.server.app(nodes, context())
    (tmp_path / "run.pt").unlink()
    app.server.app(nodes, context())
    assert spent(tmp_path) == len(nodes.asked) == 3


@pytest.mark.slow
def test_it_learns(app, tmp_path, monkeypatch, capsys) -> None:
    operator(monkeypatch, tmp_path, quiet(10, rounds=10))
    torch.manual_seed(0)
    app.server.app(devices(app, 10), context())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("round 10: accuracy ")
    assert float(last.split()[-1]) > 0.8


def test_a_device_sends_its_model_alone(app) -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord(app.task.make_model().state_dict()),
            "config": ConfigRecord({"lr": 2.0}),
        }
    )
    message = Message(content, message_type=MessageType.TRAIN, dst_node_id=3)
    reply = app.client.app(message, context(3)).content
    assert list(reply) == ["arrays"]
    assert {name: array.shape for name, array in reply["arrays"].items()} == {
        "weight": (10, 64),
        "bias": (10,),
    }


def test_nobodys_records_are_anybody_elses(app) -> None:
    parts = [app.task.records_of(node, 40) for node in range(40)]
    assert sum(len(y) for _, y in parts) == 1440


def test_a_run_installs_nothing_and_sets_nothing_of_the_operators() -> None:
    names = [need.partition(">")[0] for need in CONFIG["project"]["dependencies"]]
    assert names == ["flwr"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CONFIG["project"]["dependencies"] == ours["optional-dependencies"]["flower"]
    flower = CONFIG["tool"]["flwr"]["app"]
    assert not set(flower["config"]) & _OPERATORS
    assert flower["fab-include"] == ["digits/*.py"]


# What is made before a federation begins, and what happens on one machine.


def test_the_certificate_is_the_servers_and_the_authoritys(app, tmp_path) -> None:
    app.keys.certificates(tmp_path, "127.0.0.1")
    authority, server = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        for name in ("ca.crt", "server.pem")
    )
    store = x509.verification.Store([authority])
    builder = x509.verification.PolicyBuilder().store(store)
    here = builder.build_server_verifier(x509.IPAddress(ip_address("127.0.0.1")))
    assert here.verify(server, []) == [server, authority]
    elsewhere = builder.build_server_verifier(x509.DNSName("elsewhere"))
    with pytest.raises(x509.verification.VerificationError):
        elsewhere.verify(server, [])
    assert (tmp_path / "server.key").stat().st_mode & 0o77 == 0
    with pytest.raises(FileExistsError):
        app.keys.certificates(tmp_path, "127.0.0.1")


def test_the_keys_are_a_roster(app, tmp_path) -> None:
    keys = [app.keys.node_key(tmp_path, name) for name in ("a", "b")]
    assert len(Roster(keys)) == 2
    assert (tmp_path / "a.pub").read_text().split()[:2] == keys[0].split()
    assert (tmp_path / "a").stat().st_mode & 0o77 == 0


def test_what_the_readme_makes_is_what_it_names(app, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "not there yet" / "keys"
    monkeypatch.setattr(sys, "argv", ["credentials.py", str(folder), "--nodes", "2"])
    app.keys.main()
    made = {"ca.crt", "server.pem", "server.key", "roster"}
    nodes = {"node-0", "node-0.pub", "node-1", "node-1.pub"}
    assert {path.name for path in folder.iterdir()} == made | nodes
    assert len(Roster((folder / "roster").read_text().splitlines())) == 2


def test_the_readmes_config_knows_the_superlinks_that_it_names() -> None:
    readme = (APP / "README.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"```toml\n(.*?)```", readme, re.S)
    superlinks = tomllib.loads(config)["superlink"]
    assert superlinks["default"] == "here"
    named = set(re.findall(r"flwr run \. (\w+)", readme))
    assert named == {"here", "local"}
    assert named < set(superlinks)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_a_child_in_a_session_of_its_own_is_not_forgotten(app, tmp_path) -> None:
    """As Flower's SuperExec is, whose parent may be gone."""
    code = (
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)', 'the-child']\n"
        "subprocess.Popen(sleep, start_new_session=True)"
    )
    with app.processes.Processes(tmp_path, {}) as started:
        started.start("parent", sys.executable, "-c", code)
        app.processes.until("it ends", 60, lambda: started.ended("parent"))
        (child,) = started.running("parent", "the-child")
        assert started.running("par") == started.running("parent", "another") == []
        assert started.running() == [child]
        assert os.getpid() != child
    assert started.running() == []
    with pytest.raises(app.processes.Fault, match="never: not within 0 seconds"):
        app.processes.until("never", 0, lambda: False)
    with pytest.raises(app.processes.Fault, match="no such thing"):
        started.ask("user", sys.executable, "-c", "raise SystemExit('no such thing')")
    with pytest.raises(app.processes.Fault, match="no-such-program does not start: No such file"):
        started.start("user", "no-such-program")


def test_a_command_that_fails_with_exit_status_0_is_a_fault(app, tmp_path, monkeypatch) -> None:
    here = app.deploy.Deployment(tmp_path)
    failed = '{"success": false, "error-message": "unavailable"}'
    nodes = '{"success": true, "nodes": [{"node-id": "7", "status": "online"}]}'
    answers = iter([nodes, failed, failed])
    monkeypatch.setattr(here.processes, "ask", lambda *command: next(answers))
    assert here.online() == ["7"]
    for command in (here.online, here.submit):
        with pytest.raises(app.processes.Fault, match="unavailable"):
            command()


@pytest.mark.parametrize("folder", ["a folder", "a,folder", "a%folder"])
def test_an_environment_in_which_a_superlink_has_no_tables_is_refused(app, folder) -> None:
    app.processes.check_place("/home/me/a-folder/flwr/__init__.py")
    with pytest.raises(app.processes.Fault, match=f"{folder}/flwr: .* make the environment"):
        app.processes.check_place(f"/home/me/{folder}/flwr/__init__.py")


@pytest.mark.parametrize("folder", ["plain", "a folder", "a,folder", "a%folder"])
def test_flower_finds_its_tables_nowhere_else(tmp_path, monkeypatch, folder) -> None:
    """Where this fails, `check_place` refuses too little, or what works."""
    from flwr.supercore.state.alembic import utils
    from sqlalchemy import create_engine, inspect

    shutil.copytree(utils.ALEMBIC_DIR, tmp_path / folder)
    monkeypatch.setattr(utils, "ALEMBIC_DIR", tmp_path / folder)
    engine = create_engine(f"sqlite:///{tmp_path}/superlink.db")
    found = []
    # alembic may end in an error, or find nothing to do.
    with contextlib.suppress(Exception):
        utils.run_migrations(engine)
        found = inspect(engine).get_table_names()
    assert ("node" in found) == (folder == "plain")


# Flower's own quickstart.


class Net(torch.nn.Linear):
    """In the place of the quickstart's."""

    def __init__(self) -> None:
        super().__init__(64, 10)


def patched(folder: Path) -> str:
    """The quickstart's server with our lines in it."""
    path = folder / "examples" / "quickstart-pytorch" / "pytorchexample" / "server_app.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(UPSTREAM.read_bytes())
    subprocess.run(["git", "apply", str(PATCH)], cwd=folder, check=True, timeout=60)
    return path.read_text(encoding="utf-8")


def test_the_patch_is_a_few_lines_on_flowers_own_file() -> None:
    lines = PATCH.read_text(encoding="utf-8").splitlines()
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert 0 < len(changed) <= 6
    text = UPSTREAM.read_bytes()
    # As git names the file at the commit which the README names.
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
    (index,) = (line for line in lines if line.startswith("index "))
    assert blob.startswith(index.split()[1].partition("..")[0])


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_quickstart_runs_under_the_plan(app, tmp_path, monkeypatch) -> None:
    source = patched(tmp_path)
    stand_in: Any = ModuleType("pytorchexample.task")
    stand_in.Net = Net
    stand_in.load_centralized_dataset = lambda: None
    stand_in.test = lambda model, loader, device: (0.5, 0.5)
    monkeypatch.setitem(sys.modules, "pytorchexample", ModuleType("pytorchexample"))
    monkeypatch.setitem(sys.modules, "pytorchexample.task", stand_in)
    operator(monkeypatch, tmp_path, plan_of(1.0, 40, 3))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(source, str(UPSTREAM), "exec"), names)
    config = {"fraction-evaluate": 0.5, "num-server-rounds": 3, "learning-rate": 0.1}
    nodes = devices(app)
    names["app"](nodes, Context(1, 1, {}, RecordDict(), config))
    assert spent(tmp_path) == len(nodes.asked) == 3
    assert (tmp_path / "final_model.pt").exists()
