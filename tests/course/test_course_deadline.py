"""Limits of time: those of an idle machine, however busy this one is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from course import deadline
from course.deadline import PATIENCE, Deadline, queued

BUSY = [sys.executable, "-c", "while True: pass"]


def test_every_second_counts_where_nobody_knows_the_process():
    end = Deadline(0.2)
    while end.left():
        time.sleep(0.01)
    assert end.used() >= 0.2
    assert queued(None) == 0
    assert Deadline(-1.0).left() == 0


def test_time_in_which_others_ran_does_not_count(monkeypatch):
    waited = iter([10.0, 10.0, 13.0, 16.0])
    clock = iter([0.0, 1.0, 5.0, 8.0])
    monkeypatch.setattr(deadline, "queued", lambda pid: next(waited))
    monkeypatch.setattr(deadline.time, "monotonic", lambda: next(clock))
    end = Deadline(20.0, pid=1)
    assert [end.used(), end.used(), end.used()] == [1.0, 2.0, 2.0]


def test_a_limit_ends_all_the_same(monkeypatch):
    monkeypatch.setattr(deadline, "queued", lambda pid: time.monotonic())
    end = Deadline(0.01, pid=1)
    time.sleep(0.01 * PATIENCE + 0.01)
    assert end.left() == 0


def test_a_pause_does_not_count():
    end = Deadline(60.0)
    with end.paused():
        time.sleep(0.3)
    assert end.used() < 0.3


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="no /proc/…/schedstat")
def test_the_system_tells_how_long_a_process_waited():
    """Two busy processes on one processor: each waits about half of the time."""
    one = min(os.sched_getaffinity(0))
    started = [subprocess.Popen(BUSY, preexec_fn=lambda: os.sched_setaffinity(0, {one}))]
    started += [subprocess.Popen(BUSY, preexec_fn=lambda: os.sched_setaffinity(0, {one}))]
    try:
        time.sleep(0.3)
        assert max(queued(popen.pid) for popen in started) > 0.01
    finally:
        for popen in started:
            popen.send_signal(signal.SIGKILL)
            popen.wait()
