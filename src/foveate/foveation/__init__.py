"""Foveation: the policy network and the estimators that turn its logits into fields of view."""
