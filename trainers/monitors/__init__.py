"""Monitors: numbers that show early if a training fails, and warnings that are given once."""

from trainers.monitors.counts import PatchCounts, count
from trainers.monitors.failures import LIMITS, SAMPLE_EVERY, Monitors, Readings, known_warnings

__all__ = ["LIMITS", "SAMPLE_EVERY", "Monitors", "PatchCounts", "Readings", "count", "known_warnings"]
