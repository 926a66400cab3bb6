"""The stages, wired together: what the commands and the demo call."""
