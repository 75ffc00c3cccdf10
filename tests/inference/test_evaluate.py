import numpy as np
import torch
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.labels import LabelReader
from foveate.data.readers.array import ArrayReader
from foveate.foveation.estimators import FixedScale
from foveate.inference.config import InferenceConfig
from foveate.inference.evaluate import Evaluator
from foveate.inference.pixels import PixelSource
from foveate.metrics.scores import scores_from
from foveate.patches.scales import ScaleSet
from foveate.segmenter import FoveatedSegmenter
from oracles import confusion

CPU = torch.device("cpu")
NAMES = ["a", "b", "c"]


def evaluate(pixels, label, **options):
    segmenter = FoveatedSegmenter(nn.Identity(), ScaleSet(16, (16, 32)), estimator=FixedScale())
    evaluator = Evaluator(segmenter, NAMES, 255, InferenceConfig(**options), CPU)
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)
    done = []
    evaluator.add(source, LabelReader(ArrayReader(label[None]), 3), done.append)
    return evaluator.result(), sum(done)


def test_scores_are_those_of_the_whole_image():
    """An identity network predicts the brightest band: its confusion matrix is known without it."""
    rng = np.random.default_rng(0)
    pixels = rng.random((3, 75, 52), dtype=np.float32)
    label = rng.choice([0, 1, 2, 255], (75, 52)).astype(np.uint8)
    expected = scores_from(torch.from_numpy(confusion(label, pixels.argmax(0), 3, 255)), NAMES)
    for block in (16, 33, 512):
        result, done = evaluate(pixels, label, block_size=block)
        assert result.scores == expected
        assert done == 75 * 52


def test_blocks_without_labels_cost_nothing():
    pixels = np.random.default_rng(1).random((3, 64, 64), dtype=np.float32)
    label = np.full((64, 64), 255, np.uint8)
    label[40:, 40:] = 1
    result, done = evaluate(pixels, label, block_size=32, overlap=0)
    assert done == 32 * 32
    assert result.cost["passes"] == 4
    assert result.cost["passes_per_megapixel"] == 4 / (32 * 32 / 1e6)
    assert result.scores.absent == ("a", "c")
    assert {"miou", "seconds", "peak_memory_mb", "images"} <= set(result.tree())
