"""Ensembled sliding-window prediction of a volume on its own grid, in bounded memory."""
