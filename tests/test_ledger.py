"""plan.ledger: on disk before the release, never below the truth, one writer, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp import accounting
from fldp.accounting.events import Approximate, Concentrated, Event, Laplace
from fldp.plan import chain
from fldp.plan.ledger import Ledger, grouped


@pytest.fixture
def plan() -> fldp.PrivacyPlan:
    return fldp.calibrate(epsilon=2.0, delta=1e-4, rounds=10, clients=1000, cohort=100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def fill(path: Path, count: int = 3, plan: fldp.PrivacyPlan | None = None) -> dict:
    with Ledger(path, plan) as ledger:
        for t in range(1, count + 1):
            ledger.record(Event(float(t)), t)
        return ledger.head


def test_what_is_recorded_is_read_back(tmp_path: Path, plan: fldp.PrivacyPlan) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    with Ledger(path, plan) as ledger:
        for t in range(1, 11):
            ledger.record(plan.event, t)
        assert [entry.round for entry in ledger.entries] == list(range(1, 11))
        assert ledger.epsilon() == pytest.approx(plan.epsilon(), rel=1e-3)
        assert ledger.epsilon() <= plan.target_epsilon
    assert Ledger.read(path) == [plan.event] * 10
    with Ledger(path, plan) as again:
        assert again.events == [plan.event] * 10
        assert [entry.round for entry in again.entries] == list(range(1, 11))
    with Ledger(path) as again:
        assert again.plan == plan


def test_an_event_is_on_disk_when_record_returns(path: Path) -> None:
    code = (
        "import os, sys\nfrom fldp.plan.ledger import Ledger\nfrom fldp.accounting import Event\n"
        "ledger = Ledger(sys.argv[1])\nledger.record(Event(1.0), 1)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert Ledger.read(path) == [Event(1.0)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the last line of")
@given(cut=st.integers(min_value=0, max_value=1400))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_recovers_every_whole_line_or_is_left_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    fill(path)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    if 0 < len(content) < len(chain.MAGIC):
        with pytest.raises(ValueError, match="not a ledger"):
            Ledger(path)
        assert path.read_bytes() == content
        return
    found = chain.parse(content, path)
    with Ledger(path) as ledger:
        assert ledger.entries == found.entries
        ledger.record(Event(9.0), 9)
    assert Ledger.read(path) == [entry.event for entry in found.entries] + [Event(9.0)]
    torn = path.with_name("ledger.jsonl.torn")
    assert torn.exists() == bool(found.torn)
    if found.torn:
        assert torn.read_bytes() == found.torn + b"\n"


def test_p09_a_torn_last_line_is_kept_and_named(path: Path) -> None:
    fill(path)
    whole = path.read_bytes()
    for piece in (b'{"round": 4, "lab', b'{"round"'):
        path.write_bytes(whole + piece)
        with pytest.warns(UserWarning, match=r"cut off by a crash.*ledger.jsonl.torn"):
            Ledger(path).close()
        assert path.read_bytes() == whole
    kept = path.with_name("ledger.jsonl.torn").read_bytes()
    assert kept == b'{"round": 4, "lab\n{"round"\n'


def test_a_torn_line_that_cannot_be_kept_stays_where_it_is(path: Path) -> None:
    fill(path)
    content = path.read_bytes() + b'{"round": 4'
    path.write_bytes(content)
    path.with_name("ledger.jsonl.torn").mkdir()
    with pytest.raises(ValueError, match="cannot be moved to"):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_last_line_that_lacks_its_newline_counts(path: Path) -> None:
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(Ledger.read(path)) == 3
    with Ledger(path) as ledger:
        assert len(ledger.events) == 3
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"my thesis, without a newline",
        b"name,age\nalice,30\n",
        b'{"something": 1}\n',
        b'{"ledger": "of my shop", "balance": 3}',
        b"\x00\xff\xfe",
        b"{",
        b"\n",
    ],
)
def test_p09_a_foreign_file_is_refused_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for use in (Ledger, Ledger.read):
        with pytest.raises(ValueError, match="ledger"):
            use(path)
    assert path.read_bytes() == content
    assert not path.with_name("ledger.jsonl.torn").exists()


def test_p09_rounds_of_an_event_count(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record(Event(1.0, 0.05, "poisson", rounds=500), 1)
        alone = accounting.epsilon_of([Event(1.0, 0.05, "poisson", rounds=500)], 1e-5)
        assert ledger.epsilon(1e-5, "add-or-remove") == pytest.approx(alone)
    assert sum(event.rounds for event in Ledger.read(path)) == 500


def test_p09_epsilon_is_that_of_the_plans_own_adjacency_and_delta(path: Path) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=5, clients=1000, adjacency="replace-one")
    with Ledger(path, plan) as ledger:
        for t in range(1, 6):
            ledger.record(plan.event, t)
    with Ledger(path) as ledger:
        assert ledger.epsilon() == pytest.approx(8.0, rel=2e-3)
        assert ledger.epsilon(adjacency="add-or-remove") < 5
        assert ledger.would_exceed(plan.event)
        assert not ledger.would_exceed(plan.event, epsilon=10.0)


def test_p09_a_ledger_without_a_plan_wants_delta_and_adjacency(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record(Event(1.0))
        for given_ in ({}, {"delta": 1e-5}, {"adjacency": "zero-out"}):
            for ask in (ledger.epsilon, ledger.summary):
                with pytest.raises(ValueError, match="give delta and adjacency"):
                    ask(**given_)
        with pytest.raises(ValueError, match="give epsilon"):
            ledger.would_exceed(Event(1.0))
        assert ledger.epsilon(1e-5, "zero-out") > 4


@pytest.mark.parametrize("trust", ["distributed", "local"])
@pytest.mark.parametrize("sampling", ["poisson", "none"])
def test_p01_a_ledger_of_known_cohorts_refuses_add_or_remove(
    path: Path, tmp_path: Path, trust: str, sampling: str
) -> None:
    survivors = 80 if trust == "distributed" else None
    plan = fldp.calibrate(
        epsilon=2.0, delta=1e-5, rounds=5, clients=1000, cohort=100, trust=trust,
        sampling=sampling, min_survivors=survivors,
    )  # fmt: skip
    with Ledger(path, plan) as ledger, Ledger(tmp_path / "without a plan") as bare:
        ledger.record(plan.event, 1)
        bare.record(plan.event, 1)
        assert 0 < ledger.epsilon() <= 2
        for book in (ledger, bare):
            with pytest.raises(ValueError, match="known"):
                book.epsilon(1e-5, "add-or-remove")


def test_p01_amplified_events_are_no_account_where_the_draws_are_seen(tmp_path: Path) -> None:
    plan = fldp.calibrate(
        epsilon=2.0,
        delta=1e-5,
        rounds=5,
        clients=1000,
        cohort=100,
        trust="distributed",
        min_survivors=80,
    )
    amplified = Event(plan.noise_multiplier, 0.1, "poisson")
    with Ledger(tmp_path / "a", plan) as ledger:
        with pytest.raises(ValueError, match="where they are seen"):
            ledger.record(amplified)
        ledger.record(Event(plan.noise_multiplier), 1)
    with Ledger(tmp_path / "b") as bare:
        bare.record(amplified)
    with pytest.raises(ValueError, match="where they are seen"):
        Ledger(tmp_path / "b", plan)


@pytest.mark.slow
def test_several_kinds_of_release_compose_to_one_account(
    path: Path, plan: fldp.PrivacyPlan
) -> None:
    others = {
        "histogram of ages": Laplace(2.0),
        "validation figure": Approximate(0.1, 1e-7),
        "census": Concentrated(0.05),
    }
    with Ledger(path, plan) as ledger:
        for t in range(1, 11):
            ledger.record(plan.event, t)
        for label, event in others.items():
            ledger.record(event, label=label)
        rows = {row["label"]: row for row in ledger.summary()}
        together = ledger.epsilon()
        assert list(rows) == ["training", *others, "all together"]
        assert rows["training"]["rounds"] == 10
        assert rows["training"]["epsilon"] == pytest.approx(2.0, rel=2e-3)
        assert rows["all together"]["epsilon"] == together
        parts = [row["epsilon"] for label, row in rows.items() if label != "all together"]
        assert max(parts) < together < sum(parts)
        assert "histogram of ages" in str(ledger.summary())
        assert "<pre>" in ledger.summary()._repr_html_()
        with pytest.raises(ValueError, match="in another is not known"):
            ledger.epsilon(adjacency="replace-one")
    assert Ledger.read(path)[10:] == list(others.values())


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        (("one round", 1), "one round"),
        ((Event(1.0), -1), "round is -1"),
        ((Event(1.0), 1, ""), "label is ''"),
        ((Event(1.0), 1, 3), "label is 3"),
    ],
)
def test_what_is_no_entry_is_refused(path: Path, given_: tuple, match: str) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(ValueError, match=match):
            ledger.record(*given_)
        assert ledger.events == []
    assert Ledger.read(path) == []


def test_p09_lines_cut_off_the_end_and_forks_are_refused_by_the_head(
    path: Path, tmp_path: Path
) -> None:
    head = fill(path)
    whole = path.read_bytes().splitlines(keepends=True)
    with Ledger(path) as ledger:
        ledger.check(head)
        ledger.record(Event(7.0))
        ledger.check(head)
        assert ledger.head["count"] == 4
    path.write_bytes(b"".join(whole[:-1]))
    with Ledger(path) as shorter:
        with pytest.raises(ValueError, match="2 entries where it had 3"):
            shorter.check(head)
        shorter.record(Event(8.0), 3)
        with pytest.raises(ValueError, match="not the ledger that was left behind"):
            shorter.check(head)
    with Ledger(tmp_path / "fresh") as fresh, pytest.raises(ValueError, match="0 entries where"):
        fresh.check(head)


@pytest.mark.parametrize(
    "head", [None, 3, {}, {"count": 1}, {"count": -1, "hash": ""}, {"count": "1", "hash": ""}]
)
def test_a_head_that_is_none_is_refused(path: Path, head: object) -> None:
    with Ledger(path) as ledger, pytest.raises(ValueError, match="head"):
        ledger.check(head)  # type: ignore[arg-type]


def test_the_head_of_an_empty_ledger_names_its_plan(tmp_path: Path, plan: fldp.PrivacyPlan) -> None:
    with Ledger(tmp_path / "a", plan) as a, Ledger(tmp_path / "b") as b:
        assert a.head["count"] == b.head["count"] == 0
        with pytest.raises(ValueError, match="not the ledger that was left behind"):
            b.check(a.head)
        json.dumps(a.head)


@pytest.mark.parametrize("how", ["deleted", "replaced", "appended", "cut"])
def test_p09_a_file_moved_away_or_changed_while_open_takes_no_more(path: Path, how: str) -> None:
    with Ledger(path) as ledger:
        ledger.record(Event(1.0), 1)
        if how == "appended":
            with open(path, "ab") as file:
                file.write(b"x")
        elif how == "cut":
            os.truncate(path, 3)
        else:
            path.unlink()
        if how == "replaced":
            with Ledger(path) as second:
                second.record(Event(2.0), 1)
        with pytest.raises(ValueError, match=r"takes no more entries: .* while it was open"):
            ledger.record(Event(1.0), 2)
        assert len(ledger.events) == 1


def test_a_second_writer_is_refused_until_the_first_has_gone(path: Path) -> None:
    with Ledger(path), pytest.raises(ValueError, match="has a writer already"):
        Ledger(path)
    Ledger(path).close()


def test_a_second_process_is_refused(path: Path) -> None:
    code = "import sys\nfrom fldp.plan.ledger import Ledger\nLedger(sys.argv[1])"
    with Ledger(path):
        command = [sys.executable, "-c", code, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "has a writer already" in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_copy_is_no_second_writer(path: Path) -> None:
    with Ledger(path) as ledger:
        child = os.fork()
        if child == 0:
            try:
                ledger.record(Event(1.0))
            except ValueError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        ledger.record(Event(2.0))
    assert Ledger.read(path) == [Event(2.0)]


def test_threads_record_one_after_the_other(path: Path) -> None:
    with Ledger(path) as ledger:

        def work() -> None:
            for _ in range(20):
                ledger.record(Event(1.0))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(Ledger.read(path)) == 80


def test_a_closed_ledger_takes_no_more(path: Path) -> None:
    ledger = Ledger(path)
    ledger.close()
    with pytest.raises(ValueError, match="it is closed"):
        ledger.record(Event(1.0))


def test_a_failed_write_is_the_last(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(path) as ledger:
        ledger.record(Event(1.0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", _refuse(errno.ENOSPC))
            with pytest.raises(ValueError, match="nothing may be released"):
                ledger.record(Event(2.0))
        with pytest.raises(ValueError, match="an earlier write failed"):
            ledger.record(Event(3.0))
        assert ledger.events == [Event(1.0)]
    with Ledger(path) as ledger:  # what was written before the failure counts: never too little
        assert ledger.events == [Event(1.0), Event(2.0)]


def _refuse(code: int):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_says_so_and_can_be_vouched_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", _refuse(code))
    with pytest.raises(ValueError, match=r"no file locks.*lock=False"):
        Ledger(path)
    with pytest.warns(UserWarning, match="is not locked"):
        ledger = Ledger(path, lock=False)
    ledger.record(Event(1.0))
    with pytest.warns(UserWarning, match="is not locked"):
        second = Ledger(path, lock=False)
    second.record(Event(2.0))
    with pytest.raises(ValueError, match="somebody else changed it"):
        ledger.record(Event(3.0))
    ledger.close()
    second.close()


def test_a_folder_that_cannot_be_synced_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell a folder from a file")
    monkeypatch.setattr(os, "fsync", only_files)
    with pytest.warns(UserWarning, match="cannot be synced"), Ledger(path) as ledger:
        ledger.record(Event(1.0))
    assert Ledger.read(path) == [Event(1.0)]


@pytest.mark.parametrize("what", ["folder", "missing", "inside a file"])
def test_paths_that_are_no_files_are_refused_in_words(tmp_path: Path, what: str) -> None:
    path = tmp_path
    if what != "folder":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "ledger"
    if what == "missing":
        path = tmp_path / "nothing"
    with pytest.raises(ValueError, match="cannot be read"):
        Ledger.read(path)
    if what != "missing":
        with pytest.raises(ValueError, match=r"not a regular file|cannot be opened"):
            Ledger(path)


def test_a_ledger_of_version_1_can_be_read_and_carried_over(path: Path, tmp_path: Path) -> None:
    lines = [{"ledger": 1, "plan": None}]
    lines += [{"round": t, "event": Event(2.0).to_dict()} for t in (1, 2)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"version 1.*Ledger.read\(old\)"):
        Ledger(path)
    with Ledger(tmp_path / "new.jsonl") as new:
        for event in Ledger.read(path):
            new.record(event, label="version 1")
    assert Ledger.read(tmp_path / "new.jsonl") == [Event(2.0)] * 2


def test_the_gate_refuses_the_event_that_exceeds(path: Path, plan: fldp.PrivacyPlan) -> None:
    with Ledger(path, plan) as ledger:
        for t in range(1, 11):
            assert not ledger.would_exceed(plan.event)
            ledger.record(plan.event, t)
        assert ledger.would_exceed(plan.event, plan.target_epsilon, plan.delta)


def test_another_plan_and_a_damaged_line_are_refused(path: Path, plan: fldp.PrivacyPlan) -> None:
    Ledger(path, plan).close()
    other = fldp.calibrate(epsilon=1.0, delta=1e-4, rounds=10, clients=1000, cohort=100)
    with pytest.raises(ValueError, match="the ledger of another plan"):
        Ledger(path, other)
    before = path.read_text()
    path.write_text(before + "not json\n")
    with pytest.raises(ValueError, match="line 2 is damaged"):
        Ledger(path, plan)
    assert path.read_text() == before + "not json\n"


def test_a_plan_can_join_a_ledger_that_has_none(path: Path, plan: fldp.PrivacyPlan) -> None:
    with Ledger(path) as ledger:
        ledger.record(Event(10.0), label="histogram")
    with Ledger(path, plan) as ledger:
        ledger.record(plan.event, 1)
        assert ledger.epsilon() > accounting.epsilon_of([plan.event], plan.delta)


def test_composition_does_not_depend_on_the_order() -> None:
    a, b = Event(1.0), Event(2.0, 0.1, "poisson")
    assert grouped([a, b, a]) == grouped([a, a, b])
    assert grouped([a, b, a])[0].rounds == 2
    assert grouped([Laplace(1.0, 3), Laplace(1.0)]) == [Laplace(1.0, 4)]


@pytest.mark.parametrize("epsilon", [float("nan"), "8", True, [1], -1])
def test_p09_no_question_about_the_budget_is_answered_for_a_bad_epsilon(
    path: Path, plan: fldp.PrivacyPlan, epsilon: object
) -> None:
    with Ledger(path, plan) as ledger, pytest.raises(ValueError, match="epsilon is"):
        ledger.would_exceed(plan.event, epsilon=epsilon)  # type: ignore[arg-type]


def test_p09_secret_draws_are_not_asked_about_where_they_are_seen(path: Path) -> None:
    seen = fldp.calibrate(
        epsilon=2.0, delta=1e-4, rounds=10, clients=1000, cohort=100, trust="distributed",
        min_survivors=80,
    )  # fmt: skip
    with Ledger(path, seen) as ledger, pytest.raises(ValueError, match="known=True"):
        ledger.would_exceed(Event(seen.noise_multiplier, 0.1, "poisson"))


@pytest.mark.parametrize("odd", [None, 3, b"name", [], "a\0b", "\ud800"])
def test_p09_what_names_no_file_is_refused_in_words(odd: object) -> None:
    for use in (Ledger, Ledger.read):
        with pytest.raises(ValueError, match="path is"):
            use(odd)  # type: ignore[arg-type]


def test_p09_what_is_no_plan_is_refused_before_a_file_is_made(path: Path) -> None:
    with pytest.raises(ValueError, match="plan is"):
        Ledger(path, plan={"epsilon": 8})  # type: ignore[arg-type]
    assert not path.exists()


def test_a_ledger_from_before_min_survivors_opens_and_goes_on(path: Path) -> None:
    plan = fldp.calibrate(
        epsilon=2.0, delta=1e-5, rounds=5, clients=100, trust="distributed", min_survivors=80
    )
    old = plan.to_dict()
    old["survivors"] = old.pop("min_survivors")
    first, digest = chain.seal(chain.header(plan) | {"plan": old})
    second, last = chain.seal(chain.line(chain.Entry(plan.event, round=1), digest))
    path.write_bytes(first + b"\n" + second + b"\n")
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now"):
        ledger = Ledger(path, plan)
    with ledger:
        assert ledger.plan == plan
        ledger.check({"count": 1, "hash": last})
        ledger.record(plan.event, 2)
        assert ledger.epsilon() == plan.epsilon(2)
    assert path.read_bytes().startswith(first + b"\n")
    with pytest.warns(DeprecationWarning, match="survivors is min_survivors now"):
        assert Ledger.read(path) == [plan.event] * 2


@pytest.mark.slow
def test_r13_a_disk_that_fills_up_ends_in_our_own_words(path: Path) -> None:
    """Closing writes what an earlier write could not: the system's error used to come out of it."""
    code = f"""
import os, resource, signal, fldp
from fldp.accounting import Event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with fldp.Ledger({str(path)!r}) as ledger:
    ledger.record(Event(4.0))
    size = os.path.getsize({str(path)!r}) + 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        ledger.record(Event(4.0))
    except ValueError as error:
        assert "nothing may be released" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
try:
    fldp.Ledger({str(path)!r} + ".new")
except ValueError as error:
    assert "cannot be written" in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.warns(UserWarning, match="cut off by a crash"), Ledger(path) as ledger:
        assert ledger.events == [Event(4.0)]
