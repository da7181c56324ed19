"""What the operator sets, and a run must not: the plan, and where its account is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fldp._checks import shown
from fldp.plan import PrivacyPlan

# Whoever submits a run sets its config, and would set these for everybody.
_OPERATORS = {"plan", "ledger", "checkpoint", "roster", "epsilon", "delta", "noise_multiplier"}


def absolute(name: str, path: str | os.PathLike[str]) -> Path:
    """A path that means the same file in every run.

    A run's own folder is named after the hash of its code: a relative path would begin a new
    account whenever the code changes.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    path : path
        What was given.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        For a relative path, and for what is none.

    Examples
    --------
    >>> absolute("ledger", "ledger.jsonl")
    Traceback (most recent call last):
    ValueError: ledger is 'ledger.jsonl': give an absolute path, as the next run has another folder
    """
    if not isinstance(path, (str, os.PathLike)) or not Path(path).is_absolute():
        raise ValueError(
            f"{name} is {shown(path)}: give an absolute path, as the next run has another folder"
        )
    return Path(path)


def from_environment() -> dict[str, Any]:
    """Plan, paths and roster for `Private`, from the environment of the operator's SuperLink.

    Guarantee: nothing that whoever submits a run may set decides how much is spent, where it is
    written down, or who is a client. Absolute paths: `FLDP_PLAN` that of a plan, as
    `plan.to_json()` writes it, `FLDP_LEDGER` that of the ledger, `FLDP_CHECKPOINT`, where it is
    set, that of the checkpoint, and `FLDP_ROSTER`, where it is set, that of the clients' public
    keys, one a line, as `ssh-keygen` writes them; empty lines and those that begin with # are
    left out. The roster is read when a run begins.

    Returns
    -------
    dict
        `plan`, `ledger` and, where they are set, `checkpoint` and `roster`: arguments of `Private`.

    Raises
    ------
    ValueError
        For a variable that is not set, a relative path, a file that cannot be read, and one that
        holds no plan.

    Examples
    --------
    >>> import tempfile, fldp
    >>> folder = Path(tempfile.mkdtemp())
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=10, clients=1000)
    >>> _ = (folder / "plan.json").write_text(plan.to_json())
    >>> os.environ["FLDP_PLAN"] = str(folder / "plan.json")
    >>> os.environ["FLDP_LEDGER"] = str(folder / "ledger.jsonl")
    >>> from_environment()["plan"] == plan
    True
    """
    plan = PrivacyPlan.from_json(_text("FLDP_PLAN"))
    found: dict[str, Any] = {
        "plan": plan,
        "ledger": absolute("FLDP_LEDGER", _variable("FLDP_LEDGER")),
    }
    if os.environ.get("FLDP_CHECKPOINT"):
        found["checkpoint"] = absolute("FLDP_CHECKPOINT", os.environ["FLDP_CHECKPOINT"])
    # Set to nothing is a mistake, and must not mean that everybody may come.
    if "FLDP_ROSTER" in os.environ:
        lines = [line.strip() for line in _text("FLDP_ROSTER").splitlines()]
        found["roster"] = [line for line in lines if line and not line.startswith("#")]
    return found


def _text(name: str) -> str:
    """What is in the file that a variable names."""
    path = absolute(name, _variable(name))
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"{name} is {path}, which cannot be read: {reason}") from None


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set: the operator sets it where the SuperLink is started")
    return value


def refuse_overrides(grid: Grid, paths: Iterable[Path]) -> None:
    """ValueError where a run's own config names what is the operator's.

    Other names of an app's own cannot be known: an app takes plan and paths from
    `from_environment`.

    Parameters
    ----------
    grid : Grid
        It knows the run.
    paths : iterable of Path
        Ledger and checkpoint.
    """
    run = getattr(grid, "run", None)
    values = dict(getattr(run, "override_config", None) or {})
    own = {str(path) for path in paths}
    for name, value in values.items():
        plain = name.lower().replace("-", "_").rpartition(".")[2].removeprefix("fldp_")
        if plain in _OPERATORS or str(value) in own:
            raise ValueError(
                f"the run's config sets {name!r}, and whoever may submit a run could: the operator "
                "sets plan and ledger in the SuperLink's environment (FLDP_PLAN, FLDP_LEDGER)"
            )


def check_enforced(plan: PrivacyPlan) -> None:
    """ValueError for trust under which noise would not be here, or twice, and for limits.

    Parameters
    ----------
    plan : PrivacyPlan
        What a server on Flower is to run.
    """
    if plan.trust == "distributed":
        raise ValueError(
            "trust is 'distributed', and Flower's strategies have no secure aggregation that adds "
            "up shares of noise: calibrate with trust='central'"
        )
    if plan.trust == "local":
        raise ValueError(
            "trust is 'local', and devices have added the noise already: use the strategy itself, "
            "with ClientApp(mods=[fldp.flower.local_dp(plan, ...)]) on each device"
        )
    # A node that starts again is another one to Flower, and nobody here counts its rounds.
    if plan.separation is not None:
        raise ValueError(
            f"separation is {plan.separation} and participations {plan.participations}: "
            "fldp.flower does not hold clients to limits on participations; calibrate without "
            "separation, participations and correlation, or use fldp.train"
        )
