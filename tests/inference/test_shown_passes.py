"""What is shown as passed is what was passed, against a walk over the windows of every pass."""

import numpy as np
import pytest
import rasterio
from predict_toys import toy_prediction, toy_segmenter

from foveate.errors import ImageReadError
from foveate.foveation.config import FoveationConfig
from foveate.foveation.estimators import CoarseFirst, FixedScale, Mixture
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.paper import SoftExpectation
from foveate.reporting import passes as module
from foveate.reporting.passes import PassesFile, note_of_training, one_view_note
from toys import write_image

HEIGHT, WIDTH = 150, 203
PYRAMID = {"planner": "pyramid", "looks": ((16, 0.5), (16, 1.0), (32, 1.0))}


def predicted(folder, estimator=None, **values):
    model = toy_segmenter()
    model.estimator = estimator or model.estimator
    config = InferenceConfig(**{"block_size": 64, "batch_size": 8, "outputs": ("classes", "passes")} | values)
    summary = toy_prediction(folder, config=config, model=model).run()
    return summary, folder / "toy.passes.tif"


def walked(path):
    """For every pixel the shares of each look that covers it, by the corners that the file holds."""
    with rasterio.open(path) as source:
        values, tags = source.read().astype(float) / 254, source.tags()
    looks, step = eval(tags["looks"]), int(tags["cell"])
    shares = np.zeros((len(looks), HEIGHT, WIDTH))
    for (band, row, col), share in np.ndenumerate(values):
        if share:
            top, left, side = row * step, col * step, looks[band][1]
            part = shares[band, top : top + side, left : left + side]
            part[:] = np.maximum(part, share)
    return shares, [view for view, _ in looks]


NO_PLACE = "ignore::rasterio.errors.NotGeoreferencedWarning"


@pytest.mark.filterwarnings(NO_PLACE)
@pytest.mark.parametrize("at_once", [2**24, 200])
def test_the_closest_pass_of_a_pyramid_is_shown(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    _, path = predicted(tmp_path, CoarseFirst(), **PYRAMID, budget=3000.0)
    shares, views = walked(path)
    closest = np.where(shares > 0, np.array(views)[:, None, None], np.inf).min(axis=0)
    made = PassesFile.read(path).made(Window(0, 0, HEIGHT, WIDTH), Size(HEIGHT, WIDTH))
    assert set(np.unique(closest)) == {16, 32}
    assert np.array_equal(made, closest)
    part = PassesFile.read(path).made(Window(37, 21, 60, 90), Size(60, 90))
    assert np.array_equal(part, closest[37:97, 21:111])
    assert np.array_equal(PassesFile.read(path).chosen(np.arange(0, 150, 7), np.arange(3, 200)), closest[::7, 3:200])


@pytest.mark.filterwarnings(NO_PLACE)
@pytest.mark.parametrize("estimator", [None, FixedScale(index=1), SoftExpectation(), Mixture(top=None)])
def test_one_pass_a_target_is_shown_with_its_weights(tmp_path, estimator):
    _, path = predicted(tmp_path, estimator, overlap=0.0)
    shares, views = walked(path)
    file = PassesFile.read(path)
    mean = np.tensordot(views, shares, axes=1) / shares.sum(axis=0)
    assert np.allclose(file.made(Window(0, 0, HEIGHT, WIDTH), Size(HEIGHT, WIDTH)), mean, atol=0.01)
    most = np.array(views)[shares.argmax(axis=0)]
    assert np.array_equal(file.chosen(np.arange(HEIGHT), np.arange(WIDTH)), most)


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_overlapping_passes_leave_no_hole(tmp_path, overlap):
    _, path = predicted(tmp_path, overlap=overlap)
    made = PassesFile.read(path).made(Window(0, 0, HEIGHT, WIDTH), Size(HEIGHT, WIDTH))
    assert set(np.unique(made)) <= set(PassesFile.read(path).views)


def test_passes_are_counted_by_field_of_view(tmp_path):
    summary, path = predicted(tmp_path, CoarseFirst(), **PYRAMID, budget=3000.0)
    passes = PassesFile.read(path).passes()
    assert sum(passes.values()) == pytest.approx(summary["passes"])
    assert list(passes) == [16, 32]


@pytest.mark.filterwarnings(NO_PLACE)
def test_another_raster_is_refused(tmp_path):
    write_image(tmp_path / "x.tif", np.zeros((1, 5, 5), np.uint8))
    with pytest.raises(ImageReadError, match="is not a map of passes"):
        PassesFile.read(tmp_path / "x.tif")


def test_nearly_one_field_of_view_is_said():
    assert "99.2 % of the passes use one field of view, 128 px" in one_view_note({64: 0.8, 128: 99.2})
    assert "fixed_2" in one_view_note({64: 0.8, 128: 99.2})
    assert one_view_note({64: 100.0, 128: 0.0}).startswith("100 %")
    assert one_view_note({64: 9_999.9, 128: 0.1}).startswith("99.9 %")
    assert one_view_note({64: 5.0, 128: 95.0}) is None
    assert one_view_note({64: 7.0}) is None


def test_the_last_validation_of_a_training_is_what_counts():
    values = {"patch_size": 32, "fields_of_view": [64, 128]}
    learned, fixed = (
        FoveationConfig.parse({**values, "estimator": {"name": name, **more}})
        for name, more in (("gumbel", {}), ("fixed", {"index": 0}))
    )
    history = [
        {"step": 1.0, "val/share/64": 0.5, "val/share/128": 0.5},
        {"step": 2.0, "val/share/64": 0.02, "val/share/128": 0.98},
        {"step": 3.0, "train/loss": 0.2},
    ]
    assert "98 % of the passes use one field of view, 128 px" in note_of_training(history, learned)
    assert note_of_training(history[:1], learned) is None
    assert note_of_training([], learned) is None
    assert note_of_training(history, fixed) is None
