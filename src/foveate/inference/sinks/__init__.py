"""Sinks: where finished blocks go, one file an output."""
