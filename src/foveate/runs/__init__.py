"""Runs: one folder that holds a resolved configuration, its checkpoints and its results."""
