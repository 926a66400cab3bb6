"""Experiments: designs that are trained alike, compared case by case, and judged in words."""
