"""Numbers that tell early when a training goes wrong, and warnings that say so once."""

from trainers.monitors.counts import PatchCounts, count
from trainers.monitors.failures import LIMITS, LOOK_EVERY, Monitors, Readings, known_warnings

__all__ = ["LIMITS", "LOOK_EVERY", "Monitors", "PatchCounts", "Readings", "count", "known_warnings"]
