"""Storing finished blocks, so that nothing is lost, and putting them together."""
