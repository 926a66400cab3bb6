"""Trained models on disk: folders, archives, manifests, localizers, and the best of a comparison."""
