"""Fingerprint and memory budget in, plan out."""
