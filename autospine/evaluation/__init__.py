"""Scores of label maps: overlap, cross-validation, and the post-processing that it supports."""
