"""How it is done: client updates are taken in, clipped, summed, noised and released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fldp._lazy import attach

if TYPE_CHECKING:
    from fldp.mechanism import adaptive as adaptive
    from fldp.mechanism import aggregation as aggregation
    from fldp.mechanism import clipping as clipping
    from fldp.mechanism import collection as collection
    from fldp.mechanism import contribution as contribution
    from fldp.mechanism import discrete as discrete
    from fldp.mechanism import grid as grid
    from fldp.mechanism import intake as intake
    from fldp.mechanism import lattice as lattice
    from fldp.mechanism import noise as noise
    from fldp.mechanism import reference as reference
    from fldp.mechanism import release as release
    from fldp.mechanism import rotation as rotation
    from fldp.mechanism import rounding as rounding
    from fldp.mechanism import secagg as secagg
    from fldp.mechanism import skellam as skellam
    from fldp.mechanism import summation as summation
    from fldp.mechanism import turnout as turnout
    from fldp.mechanism import updates as updates

_MODULES = (
    "adaptive",
    "aggregation",
    "clipping",
    "collection",
    "contribution",
    "discrete",
    "intake",
    "noise",
    "reference",
    "release",
    "secagg",
    "summation",
    "turnout",
    "grid",
    "lattice",
    "rotation",
    "rounding",
    "skellam",
    "updates",
)
__all__ = [*_MODULES]
__getattr__ = attach(__name__, {}, {name: name for name in _MODULES})
