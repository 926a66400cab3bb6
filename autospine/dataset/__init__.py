"""A raw dataset: its files, its checks, and its splits."""
