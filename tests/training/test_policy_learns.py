"""A problem with a known answer, through files and the real data module: where to look closely, where widely."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_toys import ON_CPU, assert_same_weights, weights_of

from foveate.data.config import DataConfig
from foveate.data.datamodule import FoveateDataModule
from foveate.data.locations import LocationSpec
from foveate.data.readers.array import ArrayReader
from foveate.foveation.estimators import CoarseFirst, GumbelSoftmax, Mixture
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import per_cell
from foveate.paper import ScoreFunction, SoftExpectation, StraightThroughArgmax
from foveate.patches import ScaleSet
from foveate.patches.extraction import overview_of
from foveate.segmenter import FoveatedSegmenter
from foveate.training.config import TrainingConfig
from foveate.training.fit import fit
from foveate.training.history import read_history
from foveate.training.task import SegmentationTask

CELL = 8
TILES = 8
SCALES = ScaleSet(CELL, (CELL, 3 * CELL))


def world(seed):
    """Tiles of 3 x 3 cells; the label, of the middle cell only, is 0 or 1.

    On the left it says whether the middle has a fine checkerboard, which a wide view averages away. On the right it
    says whether the eight cells around the middle are bright or dark, which a narrow view does not see. Red and green
    carry this; blue says which side it is.
    """
    rng = np.random.default_rng(seed)
    side = 3 * CELL * TILES
    image, label = np.full((side, side, 3), 128.0), np.full((side, side), 255, np.uint8)
    checkers = np.zeros((3 * CELL, 3 * CELL))
    checkers[CELL:-CELL, CELL:-CELL] = 70.0 * (np.indices((CELL, CELL)).sum(axis=0) % 2 * 2 - 1)
    # A pixel of the wide view is the mean of 3 x 3, which an odd number of squares would leave a trace in.
    checkers -= np.kron(checkers.reshape(CELL, 3, CELL, 3).mean(axis=(1, 3)), np.ones((3, 3)))
    for row, col in np.ndindex(TILES, TILES):
        truth = rng.integers(2)
        tile = image[3 * CELL * row :, 3 * CELL * col :][: 3 * CELL, : 3 * CELL]
        middle = tile[CELL:-CELL, CELL:-CELL, :2]
        left = col < TILES // 2
        if left:
            tile[..., :2] += checkers[..., None] * truth
        else:
            tile[..., :2] += 60.0 if truth else -60.0
            middle[:] = 128
        tile[..., 2] = 40 if left else 210
        label[3 * CELL * row :, 3 * CELL * col :][CELL : 2 * CELL, CELL : 2 * CELL] = truth
    return (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8), label


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(["one", "two", "val"]):
        for kind, array in zip(["images", "masks"], world(seed), strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def setting(folder, config, estimator, validation=1000):
    data = FoveateDataModule(
        DataConfig.parse(
            {
                "folder": str(folder),
                "classes": [{"name": "no", "color": "#000000"}, {"name": "yes", "color": "#ffffff"}],
                "split": {"val": ["val"]},
                "balance": 1.0,  # draws labelled cells only
                "workers": 0,
            }
        ),
        LocationSpec(
            SCALES,
            CELL,
            3,
            estimator.reads(2).scales,
            window_labels=estimator.reads(2).windows,
            draws_scale=estimator.reads(2).drawn,
        ),
        steps=config.steps,
        images_per_step=config.images_per_step,
        locations_per_image=config.locations_per_step // config.images_per_step,
        max_validation_locations=validation,
    )
    data.setup()
    torch.manual_seed(config.seed)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, padding_mode="replicate"),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=3, dilation=3, padding_mode="replicate"),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )
    segmenter = FoveatedSegmenter(network, SCALES, overview_downsample=CELL, estimator=estimator)
    assert segmenter.policy.margin == data.spec.policy_margin
    names = data.config.class_names
    task = SegmentationTask(
        segmenter, config, class_names=names, normalise=data.normalisation, pixel_counts=data.pixel_counts
    )
    return task, data


def narrow_probabilities(task, image):
    """The policy's probability (TILES, TILES) of the narrow field of view at the middles of the tiles."""
    task.eval()
    raw = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = task.segmenter.scale_logits(overview_of(task.normalise(raw), CELL, task.segmenter.policy.margin))
    return logits.softmax(dim=1)[0, 0, 1::3, 1::3]


# Not StraightThroughArgmax(), which with seeds 0, 1 and 2 found no such map.
LEARNERS = [
    SoftExpectation(),
    StraightThroughArgmax(name="mode_plain"),
    GumbelSoftmax(name="gumbel_soft"),
    GumbelSoftmax(),
    ScoreFunction(),
    Mixture(own_window=0),
]


@pytest.mark.parametrize("estimator", LEARNERS, ids=repr)
def test_policy_learns_to_look_closely_at_texture_and_widely_at_context(folder, estimator):
    # A policy slower than the network: as fast, it decides in some runs before the network sees any difference.
    config = TrainingConfig(
        steps=80,
        locations_per_step=16,
        images_per_step=1,
        learning_rate=0.01,
        policy_learning_rate=0.002,
        schedule="constant",
        class_weights="balanced",
        validate_every=80,
    )
    task, data = setting(folder, config, estimator)
    result = fit(task, data, folder / "run", processes=ON_CPU, progress=False)
    narrow = narrow_probabilities(task, world(2)[0])
    left, right = narrow[:, : TILES // 2], narrow[:, TILES // 2 :]
    assert left.min() > 0.7
    assert right.max() < 0.3
    assert result.best_miou > 0.95


def looked_at_closely(task, image, budget):
    """How much the narrow field of view counts (TILES, TILES) at the middles of the tiles, within a budget."""
    source = PixelSource(ArrayReader(image.transpose(2, 0, 1)), [0, 1, 2], task.normalise, torch.device("cpu"))
    config = InferenceConfig(looks=((CELL, 1.0), (3 * CELL, 1.0)), budget=budget)
    (block,) = finished_blocks(task.segmenter.eval(), source, config)
    assert block.passes <= budget * source.size.megapixels
    return per_cell(block.scale_weights, CELL)[0, 1::3, 1::3]


def test_coarse_first_looks_closer_at_texture_only(folder):
    config = TrainingConfig(
        steps=200,
        locations_per_step=16,
        images_per_step=1,
        learning_rate=0.01,
        schedule="constant",
        class_weights="balanced",
        validate_every=200,
    )
    task, data = setting(folder, config, CoarseFirst())
    fit(task, data, folder / "run", processes=ON_CPU, progress=False)
    image = world(2)[0]
    narrow = looked_at_closely(task, image, budget=1e6 * (TILES**2 + 9 * TILES**2 // 2) / (3 * CELL * TILES) ** 2)
    left, right = narrow[:, : TILES // 2], narrow[:, TILES // 2 :]
    # Ten elevenths is all that a closer look counts.
    assert left.mean() > 0.65
    assert right.mean() < 0.1


def test_resume_is_exact_through_files(folder, monkeypatch):
    config = TrainingConfig.parse({"steps": 6, "images_per_step": 2, "validate_every": 4, "checkpoint_every": 2})
    whole, data = setting(folder, config, GumbelSoftmax(), validation=50)
    fit(whole, data, folder / "whole", processes=ON_CPU, progress=False)

    killed, data = setting(folder, config, GumbelSoftmax(), validation=50)
    seed = killed.on_train_batch_start

    def until_step_five(batch, batch_idx):
        if killed.global_step == 5:
            raise RuntimeError("killed")
        seed(batch, batch_idx)

    monkeypatch.setattr(killed, "on_train_batch_start", until_step_five)
    with pytest.raises(RuntimeError, match="killed"):
        fit(killed, data, folder / "parts", processes=ON_CPU, progress=False)

    resumed, data = setting(folder, config, GumbelSoftmax(), validation=50)
    fit(resumed, data, folder / "parts", resume=True, processes=ON_CPU, progress=False)
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert read_history(folder / "parts/metrics.csv") == read_history(folder / "whole/metrics.csv")
