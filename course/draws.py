"""Numbers and tensors that nobody knows who lacks the course's key."""

from __future__ import annotations

import hashlib
import hmac
import random
import unicodedata
from collections.abc import Sequence

import torch

from course.values import Seed

# The key of the checks in the notebook: there is nothing to hide.
PUBLIC = "public"
# torch takes 64; JSON carries integers exactly up to 53.
SEED_BITS = 48


class Draw(random.Random):
    """Random draws that are the same at every grading, and others for every student and check.

    Whatever `random.Random` has: `uniform`, `randint`, `choice`, `sample`. The seed is
    HMAC-SHA-256 of the names under the course's key.

    Parameters
    ----------
    key : str
        The course's key.
    names : sequence of str
        What the draws are for: assignment, student, question, check.

    Examples
    --------
    >>> Draw("key", ["a"]).random() == Draw("key", ["a"]).random()
    True
    >>> Draw("key", ["a"]).random() == Draw("other key", ["a"]).random()
    False
    """

    def __new__(cls, key: str, names: Sequence[str]) -> Draw:
        return super().__new__(cls)

    def __init__(self, key: str, names: Sequence[str]) -> None:
        # With lengths, so that no two lists of names make one text.
        same = [unicodedata.normalize("NFC", name) for name in names]
        text = "".join(f"{len(name)}:{name}" for name in same)
        digest = hmac.new(key.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        super().__init__(int.from_bytes(digest.digest(), "big"))

    def generator(self) -> Seed:
        """A seed, which arrives in the student's function as a generator."""
        return Seed(self.getrandbits(SEED_BITS))

    def tensor(
        self, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """A tensor of independent normal numbers with this standard deviation."""
        generator = torch.Generator().manual_seed(self.generator())
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (drawn * scale).to(dtype)
