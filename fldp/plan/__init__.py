"""What is promised: a budget, the plan that meets it, its words, and the book of what was spent."""

from __future__ import annotations

from fldp.plan.attendance import participations
from fldp.plan.client import PrivacyPlan, calibrate, suggest_delta

__all__ = ["PrivacyPlan", "calibrate", "participations", "suggest_delta"]
