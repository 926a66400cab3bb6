"""Prediction of files: from images to label maps, with a log of every case."""
