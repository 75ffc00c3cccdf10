"""Tuning: choose on labelled images how a budget of passes is spent, from one prediction by every way of looking."""
