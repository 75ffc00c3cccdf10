"""Inference on images of any size: plan, read, predict, stitch and write, block by block."""
