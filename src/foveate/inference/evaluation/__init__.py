"""Evaluation: the blocks of labelled images scored, and the scores put together."""
