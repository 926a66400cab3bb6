"""Measurements of a spine in its label map: vertebrae, discs, canal, angles and alignment."""
