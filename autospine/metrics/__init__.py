"""Measures of how well a prediction agrees with a reference."""

from autospine.metrics.overlap import Counts, Scores, count_overlap, mean_scores

__all__ = ["Counts", "Scores", "count_overlap", "mean_scores"]
