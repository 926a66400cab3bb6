"""Trained models on disk: folders, archives, manifests, and the best of a comparison."""
