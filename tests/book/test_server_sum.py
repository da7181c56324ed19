"""What the chapter on secure aggregation says of masks, seeds and tails, on all small cases."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ive, log_ndtr, ndtri_exp
from scipy.stats import norm

from fldp.accounting import skellam_gdp
from fldp.accounting.lattice import skellam_logpmf

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "a-server-that-sees-only-the-sum.ipynb"


def taught(name: str) -> Any:
    """What a cell of the chapter defines."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"np": np, "norm": norm, "ive": ive}
    exec(next(source for source in sources if f"def {name}(" in source), scope)
    return scope[name]


def replies(numbers: tuple[int, ...], modulus: int) -> Counter[tuple[int, ...]]:
    """How often three clients send what, over all choices of their masks."""
    found: Counter[tuple[int, ...]] = Counter()
    for masks in itertools.product(range(modulus), repeat=3):
        found[tuple((numbers[k] + masks[k] - masks[k - 1]) % modulus for k in range(3))] += 1
    return found


def test_replies_give_their_sum_away_and_nothing_else() -> None:
    modulus = 5
    by_sum: dict[int, Counter[tuple[int, ...]]] = {}
    for numbers in itertools.product(range(modulus), repeat=3):
        found = replies(numbers, modulus)
        assert by_sum.setdefault(sum(numbers) % modulus, found) == found
        for client in range(3):
            alone: Counter[int] = Counter()
            for sent, often in found.items():
                alone[sent[client]] += often
            assert set(alone.values()) == {modulus**2}, "one reply is uniform"
    assert all(sum(sent) % modulus == total for total, some in by_sum.items() for sent in some)


def test_a_key_that_is_folded_as_base64_leaves_28_bits() -> None:
    folded = taught("folded")
    rng = np.random.default_rng(0)
    keys = [rng.bytes(32) for _ in range(300)]
    # Of 300 keys no bit is the same by chance once in 2^294.
    assert np.bitwise_or.reduce([folded(base64.urlsafe_b64encode(key)) for key in keys]) == (
        0x7F7F7F7F
    )
    assert np.bitwise_or.reduce([folded(key) for key in keys]) == 0xFFFFFFFF


@pytest.mark.parametrize("variance", [0.3, 1.0, 7.0, 100.0, 400.0])
def test_the_readers_parameter_is_the_packages(variance: float) -> None:
    # The package adds a billionth for what its sums may lose in rounding.
    assert taught("m1")(variance) == pytest.approx(skellam_gdp(variance), rel=2e-9)


def test_the_normal_law_is_above_what_the_proof_takes() -> None:
    x = np.linspace(0, 30, 3001)
    assert (log_ndtr(-x) >= -(x**2) - math.log(4)).all()


@pytest.mark.parametrize("variance", [0.3, 1.0, 7.0, 60.0])
def test_each_step_of_the_proof_on_the_tails(variance: float) -> None:
    first = math.ceil(variance)
    reach = first + 600
    logs = skellam_logpmf(variance, reach)
    below = np.logaddexp.accumulate(logs)
    # Far from the table's edge, where what is below it does not matter.
    for n in range(first, first + 300):
        k = reach - n
        ratio = math.exp(logs[k - 1] - logs[k])
        assert variance / (2 * n + 2 + variance) < ratio < 1 / 2
        h = below[k] - below[k - 1]
        assert h <= math.log(2 / ratio)
        y = float(ndtri_exp(below[k]))
        increment = y - float(ndtri_exp(below[k - 1]))
        assert increment <= h / abs(y) * (1 + 1e-9)
        assert y**2 >= -below[k] - math.log(4)
    assert increment < 0.6 * skellam_gdp(variance)
