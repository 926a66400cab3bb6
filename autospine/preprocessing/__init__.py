"""From raw volumes to stored cases: crop, resample, normalise, store."""
