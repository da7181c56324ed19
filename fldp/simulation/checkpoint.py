"""A run on disk between two rounds: what it needs to go on, and what it must still be.

A checkpoint is as private as the data: it holds cohort sizes, the key of the draws, the state of a
noise generator and what clients keep. Its file is readable by its owner alone (mode 0600).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fldp.plan.chain import path_of
from fldp.plan.ledger import atomic
from fldp.simulation.clients import Population

# What a piece of a run goes on from: by name whatever `torch.load` takes without running code.
State = dict[str, Any]

# Of the file; another number is refused.
_FORMAT = 3
_NOTE = "PRIVATE: cohorts, the key of the draws and clients' state are not for release"
# Reading and writing, for the owner alone.
_OWNER = 0o600
# Settings of a local algorithm that change how fast it runs and the last bits, and nothing else.
_SPEED = ("engine", "threads")
# Compared by hashes, which tell nobody anything.
_HASHED = ("population", "validation", "model")
# An object that holds itself is not followed for ever.
_DEEP = 5
# Entries of a large tensor that go into its fingerprint, evenly spread.
_SAMPLED = 1 << 20
# Hexadecimal digits of a fingerprint: 64 bits, against slips and not against an attacker.
_DIGITS = 16


class Checkpoint:
    """A file that holds one run; ValueError at once where the next save could not be written.

    Parameters
    ----------
    path : path
        Where the run is kept. Its folder must exist.
    resume : bool
        Whether the run goes on from what is there. False refuses a file that exists, True one that
        does not: a slip in a path neither overwrites a run nor starts one from scratch.

    Raises
    ------
    ValueError
        Where the path and `resume` do not go together, or the folder is not there.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool) -> None:
        self.path = path_of(path, "checkpoint")
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder: give the path of a file in it")
        exists = self.path.exists()
        if resume and not exists:
            raise ValueError(
                f"{self.path} does not exist, so there is nothing to resume: check the path, or "
                "leave resume out to start a run"
            )
        if exists and not resume:
            raise ValueError(
                f"{self.path} exists and holds a run: pass resume=True to go on with it, or give "
                "another path; nothing was overwritten"
            )
        if not self.path.parent.is_dir():
            raise ValueError(f"the folder {self.path.parent} does not exist: make it first")

    def save(self, state: State) -> None:
        """Replace the file as a whole, on disk.

        Parameters
        ----------
        state : dict
            Numbers, strings, lists and tensors: what torch loads without running code.

        Raises
        ------
        ValueError
            Where the file cannot be written; the one before it is still there.
        """
        try:
            with atomic(self.path) as temporary:
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER)
                with os.fdopen(descriptor, "wb") as file:
                    torch.save({"format": _FORMAT, "note": _NOTE} | state, file)
        # A disk that fills up under torch's writer is a RuntimeError, with nothing of use in it.
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            reason = "the disk may be full"
            if isinstance(error, OSError):
                reason = str(error.strerror or error)
            raise ValueError(
                f"the checkpoint {self.path} cannot be written ({reason}): make room, or give a "
                "path that you may write to; what was there before is untouched"
            ) from None

    def load(self, device: torch.device) -> State:
        """The state that `save` was given.

        Parameters
        ----------
        device : torch.device
            Where its tensors are put.

        Returns
        -------
        dict

        Raises
        ------
        ValueError
            For a file that does not hold a run.
        """
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            known = isinstance(state, dict) and state.get("format") == _FORMAT
        except Exception:  # torch's own advice would be to switch its safety off
            known = False
        if not known:
            raise ValueError(
                f"{self.path} is no readable checkpoint of this version of fldp: it was cut off, "
                "damaged, or written by something else. Restore a copy of it, or start a run at "
                "another path (a ledger keeps what this one has spent)"
            )
        return state


def compare(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to resume what is not the same run.

    Parameters
    ----------
    path : Path
        The checkpoint, for the message.
    before, now : dict of str to str
        The parts of the run that was saved, and of the one that would go on, in words.

    Raises
    ------
    ValueError
        It names the first part that is not what it was.
    """
    for name, was in before.items():
        if was == now[name]:
            continue
        told = "" if name in _HASHED else f" ({_changed(was, now[name])})"
        raise ValueError(
            f"{path} is the checkpoint of another {name}{told}. Resume with what the run began "
            "with, or give a new path"
        )


def _changed(was: str, now: str) -> str:
    before, after = was.split(", "), now.split(", ")
    gone = ", ".join(part for part in before if part not in after)
    new = ", ".join(part for part in after if part not in before)
    return f"it was {gone or was}, and is {new or now}"


def described(piece: object, depth: int = 0) -> str:
    """A server, clip, sampler or algorithm in words that two runs can compare.

    Settings count, state does not. Functions are known by their names only.

    Parameters
    ----------
    piece : object
        What a run is made of.
    depth : int
        How deep in another piece it stands.

    Returns
    -------
    str

    Examples
    --------
    >>> from fldp.simulation.server import FedAvgM
    >>> described(FedAvgM(momentum=0.5))
    'FedAvgM(average=0.0, cooldown=0.0, lr=1.0, momentum=0.5)'
    """
    if piece is None or isinstance(piece, bool | int | float | str):
        return repr(piece)
    if depth > _DEEP:
        return type(piece).__qualname__
    if isinstance(piece, list | tuple):
        return "[" + ", ".join(described(part, depth + 1) for part in piece) + "]"
    if isinstance(piece, dict):
        parts = sorted(f"{name}: {described(part, depth + 1)}" for name, part in piece.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(piece, Tensor) or hasattr(piece, "__array__"):
        return f"data {fingerprint(torch.as_tensor(piece))}"
    if callable(piece) and hasattr(piece, "__qualname__"):
        return f"{piece.__module__}.{piece.__qualname__}"
    return type(piece).__qualname__ + _settings(piece, depth)


def _settings(piece: object, depth: int) -> str:
    """The attributes of an object that are settings, in brackets; nothing where it has none."""
    if not hasattr(piece, "__dict__"):
        return ""
    told = []
    for name, value in sorted(vars(piece).items()):
        if not (name.startswith("_") or name in _SPEED or _is_state(piece, name)):
            told.append(f"{name}={described(value, depth + 1)}")
    return f"({', '.join(told)})"


def _is_state(piece: object, name: str) -> bool:
    """Whether a dataclass keeps something under `name` that is not an argument."""
    field = getattr(type(piece), "__dataclass_fields__", {}).get(name)
    return field is not None and not field.init


def crowd(population: Population) -> str:
    """A population as hashes of its records, labels and index; as private as they are.

    Parameters
    ----------
    population : Population
        Who holds which records.

    Returns
    -------
    str
    """
    facts = population.facts()
    return ", ".join(fingerprint(f) if isinstance(f, Tensor) else f for f in facts)


def outline(model: nn.Module) -> str:
    """A prepared model in words: layers, trained shapes, and values of all that is not trained.

    Parameters
    ----------
    model : nn.Module
        Prepared by a local algorithm.

    Returns
    -------
    str
    """
    lines = [
        f"{name or 'model'}: {type(module).__qualname__}({module.extra_repr()})"
        for name, module in model.named_modules()
    ]
    for name, parameter in model.named_parameters():
        told = "trained" if parameter.requires_grad else fingerprint(parameter)
        lines.append(f"{name}: {tuple(parameter.shape)} {told}")
    lines += [f"{name}: {fingerprint(buffer)}" for name, buffer in model.named_buffers()]
    return "; ".join(lines)


def fingerprint(value: Tensor) -> str:
    """Type, shape and a hash of a tensor; of a large one, a million entries evenly spread.

    Parameters
    ----------
    value : Tensor
        Of any shape and type.

    Returns
    -------
    str

    Examples
    --------
    >>> fingerprint(torch.zeros(2, 3))
    'float32[2, 3] 9d908ecfb6b256de'
    """
    flat = value.detach().reshape(-1)
    step = max(1, len(flat) // _SAMPLED)
    entries = flat[::step].cpu().contiguous().view(torch.uint8).numpy()
    digest = hashlib.sha256(entries.data).hexdigest()[:_DIGITS]
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} {digest}"
