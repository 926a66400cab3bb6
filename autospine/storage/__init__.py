"""Files that are complete or unchanged: atomic writing, JSON, tensors, arrays, locks, and the workspace."""
