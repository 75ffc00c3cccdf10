import math

import numpy as np
import pytest
import torch

from foveate.geometry import Size
from foveate.inference.block import block_layers, unknown_layers
from foveate.membership import Exclusive
from foveate.tiff.raster import FULL, NODATA

EVERYTHING = ("classes", "probabilities", "confidence", "entropy")


def test_the_layers_are_those_of_the_softmax():
    logits = 3 * torch.randn(5, 7, 9)
    layers, p = block_layers(logits, EVERYTHING, Exclusive()), logits.softmax(0).double().numpy()
    assert np.array_equal(layers["classes"], p.argmax(0))
    for name, expected in {
        "probabilities": p,
        "confidence": p.max(0),
        "entropy": -(p * np.log(p)).sum(0) / math.log(5),
    }.items():
        assert layers[name].dtype == np.uint8
        np.testing.assert_allclose(layers[name] / FULL, expected, atol=0.51 / FULL)


@pytest.mark.parametrize("classes", [2, 255])
def test_certain_and_uniform_predictions_are_the_ends_of_the_range(classes):
    sure = torch.full((classes, 2, 2), -math.inf)
    sure[1] = 0
    layers = block_layers(sure, EVERYTHING, Exclusive())
    assert (layers["classes"] == 1).all()
    assert (layers["confidence"] == FULL).all()
    assert (layers["entropy"] == 0).all()
    layers = block_layers(torch.zeros(classes, 2, 2), EVERYTHING, Exclusive())
    assert (layers["entropy"] == FULL).all()
    assert (layers["confidence"] == round(FULL / classes)).all()


def test_only_what_is_wanted_is_made():
    assert set(block_layers(torch.zeros(2, 3, 3), ("classes", "foveation", "polygons"), Exclusive())) == {"classes"}
    assert set(block_layers(torch.zeros(2, 3, 3), ("entropy",), Exclusive())) == {"classes", "entropy"}


def test_what_could_not_be_read_is_unknown_in_every_layer():
    known = block_layers(torch.zeros(3, 4, 5), EVERYTHING, Exclusive())
    unknown = unknown_layers(Size(4, 5), 3, (*EVERYTHING, "foveation"), Exclusive())
    assert {name: layer.shape for name, layer in unknown.items()} == {name: v.shape for name, v in known.items()}
    assert all((layer == NODATA).all() for layer in unknown.values())
