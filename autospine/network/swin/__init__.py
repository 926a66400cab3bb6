"""Swin UNETR with adaptive attention and multi-scale fusion."""
