import random

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.data.sections import ClassConfig
from foveate.errors import OutputExistsError
from foveate.evaluation import score as score_blocks_module
from foveate.evaluation.evaluate import LabelledImage, evaluation_of
from foveate.evaluation.maps import MapFiles, MapSpec
from foveate.evaluation.score import Scoring, score_blocks, thinning_step
from foveate.foveation.estimators import FixedScale
from foveate.geometry import Georeference, Size
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import BlockGrid, LookPlan
from foveate.inference.source import PixelSource
from foveate.membership import Exclusive
from foveate.metrics import hausdorff_distances, iou_per_cell, loss_per_cell, scores_from
from foveate.paper import SoftExpectation
from foveate.patches import ScaleSet
from foveate.patches.extraction import overview_of
from foveate.segmenter import FoveatedSegmenter
from oracles import confusion
from toys import labels_of

CPU = torch.device("cpu")
NAMES = ("a", "b", "c")
IGNORED = 255
CELL = 8
PLACE = Georeference(rasterio.CRS.from_epsg(32633).to_wkt(), (0.5, 0, 100, 0, -0.5, 900))


def model(estimator, network=None):
    """An identity network predicts the brightest band: what it gives is known without it."""
    torch.manual_seed(1)
    segmenter = FoveatedSegmenter(
        network or nn.Identity(), ScaleSet(16, (16, 32)), estimator=estimator, overview_downsample=CELL
    )
    return ready_to_predict(segmenter, CPU)


def scored(pixels, label, segmenter=None, maps=None, **options):
    """The parts of an evaluation of one image: what it is, its scored blocks, how they were scored."""
    measured = {key: options.pop(key) for key in ("hausdorff",) if key in options}
    scoring = Scoring(InferenceConfig(**options), NAMES, Exclusive(IGNORED), CELL, maps=maps is not None, **measured)
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)
    labels = labels_of(ArrayReader(label[None]), 3)
    grid = BlockGrid(source.size, scoring.block_side)
    blocks = score_blocks(segmenter or model(FixedScale()), source, labels, grid, scoring)
    return [LabelledImage("im", source.size, PLACE)], ((0, block) for block in blocks), scoring


def evaluate(*arguments, maps=None, **options):
    done = []
    images, blocks, scoring = scored(*arguments, maps=maps, **options)
    return evaluation_of(images, blocks, scoring, maps=maps, on_progress=done.append), sum(done)


def example(height=75, width=52, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, IGNORED], (height, width)).astype(np.uint8)
    return rng.random((3, height, width), dtype=np.float32), label


def map_spec(folder, overwrite=False):
    colors = [
        ClassConfig(name=name, color=color)
        for name, color in zip(NAMES, ("#ff0000", "#00ff00", "#0000ff"), strict=True)
    ]
    passes = LookPlan.of(InferenceConfig(), FixedScale(), ScaleSet(16, (16, 32))).map
    return MapSpec(folder, CELL, (16, 32), colors, Exclusive(IGNORED), passes, overwrite)


def bands_of(path):
    with rasterio.open(path) as raster:
        return raster.read()


def test_scores_are_those_of_the_whole_image():
    pixels, label = example()
    expected = scores_from(torch.from_numpy(confusion(label, pixels.argmax(0), 3, IGNORED)), list(NAMES))
    for block in (16, 33, 512):
        result, done = evaluate(pixels, label, block_size=block)
        assert result.scores == result.images[0].scores == expected
        assert done == pytest.approx(1)


def test_blocks_without_labels_cost_nothing():
    pixels = np.random.default_rng(1).random((3, 64, 64), dtype=np.float32)
    label = np.full((64, 64), IGNORED, np.uint8)
    label[40:, 40:] = 1
    result, done = evaluate(pixels, label, block_size=32, overlap=0)
    assert done == 1
    assert result.cost["passes"] == 4
    assert result.cost["passes_per_megapixel"] == 4 / (32 * 32 / 1e6)
    assert result.scores.absent == ("a", "c")
    assert {"miou", "seconds", "peak_memory_mb", "images"} <= set(result.tree())


@pytest.mark.parametrize("block", [16, 40, 512])
def test_maps_are_those_of_the_whole_image(tmp_path, block):
    segmenter = model(SoftExpectation(), nn.Conv2d(3, 3, 3, padding=1))
    pixels, label = example()
    label[8:40, 8:33] = IGNORED
    evaluate(pixels, label, segmenter, maps=map_spec(tmp_path), block_size=block)
    source = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)
    (whole,) = finished_blocks(segmenter, source, InferenceConfig())
    truth, guess = torch.from_numpy(label.astype(np.int64)), whole.logits.argmax(0)
    files = MapFiles.in_folder(tmp_path, "im")
    loss, iou = (
        loss_per_cell(whole.logits, truth, CELL, Exclusive(IGNORED)),
        iou_per_cell(guess, truth, CELL, 3, Exclusive(IGNORED)),
    )
    assert torch.isnan(loss[1:5, 1:4]).all()
    np.testing.assert_allclose(bands_of(files.loss)[0], loss, rtol=1e-4)
    np.testing.assert_allclose(bands_of(files.iou)[0], iou, rtol=1e-4)
    classes = bands_of(files.classes)[0]
    assert (classes[label != IGNORED] != IGNORED).all()
    assert np.array_equal(classes[classes != IGNORED], guess.numpy()[classes != IGNORED])
    with torch.no_grad():
        overview = overview_of(torch.from_numpy(pixels), CELL, segmenter.policy.margin)
        expected = segmenter.scale_logits(overview[None])[0].softmax(dim=0)
    np.testing.assert_allclose(bands_of(files.scales), expected, atol=1e-5)


def test_maps_lie_where_the_image_lies(tmp_path):
    pixels, label = example()
    evaluate(pixels, label, maps=map_spec(tmp_path))
    files = MapFiles.in_folder(tmp_path, "im")
    for path in (files.loss, files.iou, files.scales):
        with rasterio.open(path) as raster:
            assert raster.shape == (10, 7)
            assert raster.transform == rasterio.Affine(0.5 * CELL, 0, 100, 0, -0.5 * CELL, 900)
            assert raster.crs.to_epsg() == 32633
            assert np.isnan(raster.nodata)
    with rasterio.open(files.scales) as scales:
        assert scales.descriptions == ("field of view 16", "field of view 32")
        assert (scales.read() == [[[1]], [[0]]]).all(), "the one scale of a fixed field of view is certain"


def test_unlabelled_blocks_are_unknown_in_the_maps(tmp_path):
    pixels, label = example(64, 64)
    label[:, 32:] = IGNORED
    evaluate(pixels, label, maps=map_spec(tmp_path), block_size=32)
    files = MapFiles.in_folder(tmp_path, "im")
    assert np.isnan(bands_of(files.loss)[0, :, 4:]).all()
    assert np.isfinite(bands_of(files.loss)[0, :, :4]).all()
    assert (bands_of(files.classes)[0, :, 32:] == IGNORED).all()
    with rasterio.open(files.classes) as classes:
        assert classes.nodata == IGNORED
    passes = bands_of(files.passes)  # one every 12 pixels, where blocks are labelled
    assert (passes[0, :5, :3] == 254).all()
    assert not passes[0, :, 3:].any()
    assert not passes[1].any()


def test_blocks_may_come_in_any_order(tmp_path):
    options = {"block_size": 16, "hausdorff": True}
    in_order, _ = evaluate(*example(), maps=map_spec(tmp_path / "one"), **options)
    images, blocks, scoring = scored(*example(), maps=map_spec(tmp_path), **options)
    shuffled = list(blocks)
    random.Random(0).shuffle(shuffled)
    result = evaluation_of(images, shuffled, scoring, maps=map_spec(tmp_path / "other"))
    assert (result.scores, result.images, result.distances) == (in_order.scores, in_order.images, in_order.distances)
    one, other = (MapFiles.in_folder(tmp_path / name, "im") for name in ("one", "other"))
    for name in ("loss", "iou", "scales", "passes", "classes"):
        assert np.array_equal(bands_of(getattr(one, name)), bands_of(getattr(other, name)), equal_nan=True)


def test_distances_are_of_every_step_th_pixel(monkeypatch):
    """Blocks that do not start at multiples of the step give the same grid."""
    monkeypatch.setattr(score_blocks_module, "LONGEST_GRID", 25)
    pixels, label = example()
    assert thinning_step(Size(75, 52)) == 3
    ids = (torch.from_numpy(values[::3, ::3].astype(np.uint8)) for values in (pixels.argmax(0), label))
    expected = hausdorff_distances(*ids, 3, Exclusive(IGNORED), step=3)
    result, _ = evaluate(pixels, label, block_size=16, hausdorff=True)
    assert result.images[0].distances == pytest.approx(expected)
    assert result.distances.largest_step == 3
    tree = result.tree()
    assert tree["images"][0]["hausdorff_95"] == dict(zip(NAMES, expected, strict=True))
    assert [c["images"] for c in tree["hausdorff_95"]["classes"]] == [1, 1, 1]


def test_a_failure_half_way_leaves_no_maps(tmp_path):
    images, blocks, scoring = scored(*example(), maps=map_spec(tmp_path), block_size=16)

    def broken():
        yield next(blocks)
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        evaluation_of(images, broken(), scoring, maps=map_spec(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_existing_maps_are_kept_unless_asked(tmp_path):
    (tmp_path / "im.iou.tif").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"im\.iou\.tif"):
        evaluate(*example(), maps=map_spec(tmp_path))
    evaluate(*example(), maps=map_spec(tmp_path, overwrite=True))
    assert bands_of(tmp_path / "im.iou.tif").shape == (1, 10, 7)
