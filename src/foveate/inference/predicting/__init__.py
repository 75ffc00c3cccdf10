"""Predicting a block: read the patches of a plan, pass them through the network, stitch what comes out."""
