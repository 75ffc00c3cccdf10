"""Metrics: a streaming confusion matrix and the scores computed from it."""
