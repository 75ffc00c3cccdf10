"""Slow, obvious restatements that the fast code is compared with."""

from __future__ import annotations

import numpy as np


def mirrored(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A window of (C, H, W), mirrored at the image's edges, pixel by pixel index."""
    rows = np.pad(np.arange(image.shape[1]), 4 * (abs(top) + height), mode="symmetric")
    cols = np.pad(np.arange(image.shape[2]), 4 * (abs(left) + width), mode="symmetric")
    row0, col0 = 4 * (abs(top) + height) + top, 4 * (abs(left) + width) + left
    return image[:, rows[row0 : row0 + height]][:, :, cols[col0 : col0 + width]]


def area_mean(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) to (C, height, width): every output is the mean over its footprint.

    Pixels are split into `height` x `width` equal parts, so that every footprint is a whole number of parts.
    """
    fine = values.astype(np.float64).repeat(height, axis=1).repeat(width, axis=2)
    channels, rows, cols = values.shape
    return fine.reshape(channels, height, rows, width, cols).mean(axis=(2, 4))


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for true, guess in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != ignore:
            matrix[true, guess] += 1
    return matrix
