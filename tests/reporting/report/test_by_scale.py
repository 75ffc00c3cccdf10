"""Scores by chosen field of view, against a walk over every pixel."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.config import DataConfig
from foveate.data.manifest import Sample
from foveate.evaluation.maps import MapFiles
from foveate.evaluation.score import thinning_step
from foveate.membership import Exclusive
from foveate.reporting.report import charts
from foveate.reporting.report.charts import SampledMaps, counts_by_scale, image_counts, scale_of, scale_rows
from toys import write_image

CLASSES, IGNORED = 3, 255


def slow_counts(maps, scales, classes):
    counts = np.zeros((scales, classes, classes), int)
    for guess, truth, scale in zip(*(values.ravel().tolist() for values in maps), strict=True):
        if truth < classes and guess < classes and scale >= 0:
            counts[scale, truth, guess] += 1
    return counts


def random_maps(seed, shape=(7, 9), scales=2):
    rng = np.random.default_rng(seed)
    ids = np.array([*range(CLASSES), IGNORED], np.uint8)
    return SampledMaps(rng.choice(ids, shape), rng.choice(ids, shape), rng.integers(-1, scales, shape))


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_every_pixel_is_counted_once_where_it_belongs(seed, scales):
    maps = random_maps(seed, scales=scales)
    assert np.array_equal(counts_by_scale(maps, scales, CLASSES, Exclusive()), slow_counts(maps, scales, CLASSES))


def test_the_iou_is_that_of_the_pixels_where_a_view_was_chosen():
    maps = random_maps(3, (40, 40))
    rows = scale_rows(counts_by_scale(maps, 2, CLASSES, Exclusive()), (64, 128), ["a", "b", "c"])
    for scale, row in enumerate(rows):
        inside = (maps.chosen == scale) & (maps.labels < CLASSES) & (maps.prediction < CLASSES)
        for k, item in enumerate(row.scores.classes):
            guess, truth = (maps.prediction == k) & inside, (maps.labels == k) & inside
            assert item.iou == pytest.approx((guess & truth).sum() / (guess | truth).sum())
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.view for row in rows] == [64, 128]


def test_a_field_of_view_has_its_scale_and_none_where_nothing_was_passed():
    assert scale_of(np.array([[64, 256, 128, np.nan]], np.float32), (64, 128, 256)).tolist() == [[0, 2, 1, -1]]


def test_a_view_that_would_be_shown_with_no_pixels_is_not_seen():
    counts = np.zeros((2, 2, 2), np.int64)
    counts[0, 0, 0], counts[1, 1, 1] = 99_960, 40
    assert [row.is_seen for row in scale_rows(counts, (64, 128), ["a", "b"])] == [True, False]
    counts[1, 1, 1] = 60
    assert scale_rows(counts, (64, 128), ["a", "b"])[1].is_seen


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("longest", [2048, 40])
def test_an_image_is_counted_at_every_step_th_pixel(tmp_path, monkeypatch, longest):
    monkeypatch.setattr("foveate.evaluation.score.LONGEST_GRID", longest)
    monkeypatch.setattr(charts, "_ROWS", 5)
    height, width, cell, scales = 83, 101, 8, 3
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 2, IGNORED], np.uint8), (height, width))
    step = -(-width // longest)
    shape = (-(-height // step), -(-width // step))
    prediction = rng.integers(0, CLASSES, shape).astype(np.uint8)
    shares = rng.integers(0, 85, (scales, -(-height // cell), -(-width // cell))).astype(np.uint8)
    views = (8, 16, 24)
    files = MapFiles.in_folder(tmp_path, "x")
    write_image(files.classes, prediction[None])
    write_image(files.passes, shares)
    with rasterio.open(files.passes, "r+") as passes:
        passes.update_tags(looks=str([[view, cell] for view in views]), cell=str(cell))
    mask = write_image(tmp_path / "mask.tif", labels[None])
    config = DataConfig.parse(
        {"folder": "x", "classes": [{"name": name, "color": "#000000"} for name in "abc"], "root": str(tmp_path)}
    )
    with rasterio.open(mask) as source:
        assert thinning_step(charts.Size(source.height, source.width)) == step
    counts = image_counts(Sample(mask, mask, "x", "val"), files, config, views)
    rows, cols = np.arange(shape[0]) * step, np.arange(shape[1]) * step
    chosen = np.where(shares.any(axis=0), shares.argmax(axis=0), -1)[np.ix_(rows // cell, cols // cell)]
    assert np.array_equal(counts, slow_counts((prediction, labels[::step, ::step], chosen), scales, CLASSES))
