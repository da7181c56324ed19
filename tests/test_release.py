"""A release carries public facts only, whatever is done with it."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import json
import math
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import plan_for

from fldp.mechanism import release as module
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.aggregation import aggregate
from fldp.mechanism.release import PrivateDiagnostics, Release, RoundWarning

PUBLIC = {"mean", "noise_std", "denominator", "event", "clip_norm", "reproducible", "unclipped"}
# The norm of an update, which nothing that leaves may contain.
SECRET = 1234.5


def released() -> Release:
    rows = torch.zeros(3, 4)
    rows[1, 2] = SECRET
    return aggregate(rows, plan_for())


def through_torch(release: Release) -> Release:
    file = io.BytesIO()
    torch.save(release, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES: dict[str, Callable[[Release], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda release: dataclasses.replace(release, denominator=3.0),
    "torch.save": through_torch,
    **{
        f"pickle {protocol}": lambda release, p=protocol: pickle.loads(pickle.dumps(release, p))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("kind", sorted(COPIES))
def test_p13_copies_and_pickles_carry_no_private_part(kind: str) -> None:
    release = released()
    assert release.private.norms[1] == SECRET
    other = COPIES[kind](release)
    assert set(vars(other)) == PUBLIC
    assert torch.equal(other.mean, release.mean)
    with pytest.raises(AttributeError, match="copies and pickles are made without it"):
        other.private  # noqa: B018
    assert release.private.norms[1] == SECRET


def test_p13_no_view_of_a_release_shows_its_private_part() -> None:
    release = released()
    assert set(vars(release)) == set(dataclasses.asdict(release)) == PUBLIC
    assert {field.name for field in dataclasses.fields(release)} == PUBLIC
    assert len(dataclasses.astuple(release)) == len(PUBLIC)
    for text in (repr(release), str(release), json.dumps(vars(release), default=str)):
        assert "1234" not in text
        assert "rivate" not in text
    assert "1234" not in repr(release.private)
    assert b"PrivateDiagnostics" not in pickle.dumps(release)


@pytest.mark.slow
def test_the_private_part_goes_with_the_release() -> None:
    release = released()
    before = len(module._PRIVATE)
    del release
    gc.collect()
    assert len(module._PRIVATE) == before - 1


def test_releases_are_compared_by_identity() -> None:
    one, two = released(), released()
    assert one == one
    assert one != two
    assert len({one, two}) == 2


def facts(release: Release) -> dict[str, Any]:
    """Everything but the noisy values: what an outsider could read off."""
    mean = release.mean
    shown = {k: v for k, v in vars(release).items() if k not in ("mean", "unclipped")}
    layout = (mean.dtype, mean.shape, mean.stride(), mean.is_contiguous(), mean.device)
    storage = mean.untyped_storage().nbytes()
    return {**shown, "layout": layout, "storage": storage, "pickle": len(pickle.dumps(release))}


@pytest.mark.parametrize("size", [3, 6000])
@pytest.mark.parametrize("sampling", ["poisson", "none"])
def test_p01_under_central_trust_the_values_alone_depend_on_who_came(
    size: int, sampling: str
) -> None:
    changes: dict[str, Any] = {
        "sampling": sampling,
        "cohort": 100 if sampling == "poisson" else 400,
    }
    plan, seen = plan_for(400, **changes), []
    for count in (0, 1, 99, 101, 130, 400):
        rows = torch.full((count, size), 0.01)
        for each in (1.0, AdaptiveClip(0.1, count_noise=3.0)):
            release = aggregate(rows, plan, each, like=torch.zeros(size))
            seen.append((type(each), facts(release)))
    for kind in {kind for kind, _ in seen}:
        first, *others = [shown for k, shown in seen if k is kind]
        assert all(shown == first for shown in others)


@pytest.mark.parametrize("size", [3, 6000])
def test_p01_the_precision_of_a_release_does_not_tell_the_count(size: int) -> None:
    """The same sum, zero, with the same noise, is the same to the last bit whoever sent zeros."""
    plan = plan_for(5000, sampling="poisson", cohort=97, noise_multiplier=1.37)
    means = [
        aggregate(
            torch.zeros(count, size), plan, like=torch.zeros(size),
            generator=torch.Generator().manual_seed(1),
        ).mean
        for count in (0, 1, 2, 60, 122, 123, 200, 2000)
    ]  # fmt: skip
    assert all(torch.equal(mean, means[0]) for mean in means)


def test_p01_under_distributed_trust_the_noise_tells_the_count_and_says_so() -> None:
    plan = plan_for(20, trust="distributed", min_survivors=5, adjacency="zero-out")
    levels = [
        aggregate(torch.zeros(count, 3), plan).noise_std * plan.denominator
        for count in (5, 10, 20)
    ]  # fmt: skip
    assert levels == pytest.approx([1.0, 2**0.5, 2.0])
    assert "publishes the count" in " ".join(str(Release.__doc__).split())


def test_diagnostics_say_that_they_are_private() -> None:
    private = PrivateDiagnostics([SECRET], 1.0, 0, 1)
    assert repr(private) == "PrivateDiagnostics(<not for release>)"
    assert "NOT for release" in str(PrivateDiagnostics.__doc__)


def told(rows: Any, plan: Any = None, **options: Any) -> tuple[list[str], Any]:
    """What a release of these rows warns of, and its private part."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        release = aggregate(rows, plan or plan_for(), **options)
    texts = [str(w.message) for w in caught if issubclass(w.category, RoundWarning)]
    return texts, release.private


GOOD, NAN, INF, ZERO = [0.5, 0.5], [math.nan, 0.5], [0.5, -math.inf], [0.0, 0.0]
SILENT = ([GOOD], [GOOD, NAN], [GOOD, INF, GOOD, NAN], [GOOD, ZERO, ZERO, ZERO, NAN])
LOUD = {
    "everybody malformed": ([NAN, INF, NAN], "3 of 3 .* 3 malformed .* 0 zero"),
    "everybody zero": ([ZERO, ZERO], "2 of 2 .* 0 malformed .* 2 zero"),
    "malformed or zero": ([NAN, ZERO, ZERO], "3 of 3 .* 1 malformed .* 2 zero"),
    "more than half": ([NAN, INF, GOOD], "2 of 3 .* 2 malformed .* 0 zero"),
    "one alone": ([NAN], "1 of 1"),
}


@pytest.mark.parametrize("case", LOUD)
def test_r06_a_round_that_taught_nothing_says_so_at_once(case: str) -> None:
    rows, words = LOUD[case]
    texts, private = told(torch.tensor(rows))
    assert len(texts) == 1
    assert re.match(words, texts[0])
    assert "as private as the data" in texts[0]
    assert private.malformed == sum(row in (NAN, INF) for row in rows)
    assert private.zero == rows.count(ZERO)


@pytest.mark.parametrize("rows", SILENT)
def test_r06_a_round_that_taught_something_is_silent(rows: Any) -> None:
    texts, private = told(torch.tensor(rows))
    assert texts == []
    assert private.malformed == sum(row in (NAN, INF) for row in rows)
    assert private.usable + private.malformed == len(rows)


def test_r06_an_empty_round_is_silent() -> None:
    assert told([], like=torch.zeros(2))[0] == []


def test_r06_the_clipped_fraction_is_that_of_the_well_formed() -> None:
    rows = torch.tensor([[9.0, 0.0], [0.1, 0.0], NAN, NAN, ZERO, INF])
    private = told(rows)[1]
    assert private.clipped_fraction == 1 / 3
    assert (private.malformed, private.zero, private.usable, private.count) == (3, 1, 3, 6)


def test_r06_what_has_another_shape_is_malformed_and_named() -> None:
    sent = [torch.ones(2), torch.ones(3), "nothing", torch.ones(5)]
    texts, private = told(sent, strict=False)
    assert private.malformed == 3
    assert "first problem: the update: it has shape (3,), expected (2,)" in texts[0]


def test_r06_an_unusable_weight_is_malformed() -> None:
    texts, private = told(torch.ones(3, 2), weights=[math.nan, -1.0, 1.0], weight_cap=2.0)
    assert private.malformed == 2
    assert len(texts) == 1


def test_r06_no_filter_makes_a_warning_end_a_round(caplog: pytest.LogCaptureFixture) -> None:
    """Whether a round is released must not depend on the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        release = aggregate(torch.full((3, 2), math.nan), plan_for())
    assert torch.isfinite(release.mean).all()
    assert "3 of 3 contributions" in caplog.text
