import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from foveate.data.readers import ArrayReader, open_image
from foveate.data.sections import ClassConfig
from foveate.demo import demo_config, methods
from foveate.evaluation.evaluate import Evaluation
from foveate.geometry import Size, Window
from foveate.membership import Exclusive
from foveate.metrics import mean_distances, scores_from
from foveate.reporting.panels import (
    Panel,
    image_picture,
    panels_figure,
    save_panels,
    screen_size,
)
from foveate.reporting.tables import comparison_table, evaluation_table, image_facts, predictions_table
from foveate.texts import percent

CLASSES = [ClassConfig(name="sea", color="#102030"), ClassConfig(name="land", color="#c0b0a0")]
COST = {"megapixels": 2.0, "passes_per_megapixel": 250.0, "seconds": 3.0, "peak_memory_mb": 900.0}


def shown(table):
    console = Console(width=200, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


def evaluation(matrix, names=("sea", "land")):
    return Evaluation(scores_from(torch.tensor(matrix), list(names)), dict(COST), ())


def test_percent_of_nothing_is_a_dash():
    assert (percent(0.1234), percent(None), percent(float("nan"))) == ("12.3", "-", "-")


def test_what_was_left_empty_is_stated():
    none = {**COST, "class_pixels": {"sea": 0, "land": 0}, "failed_blocks": [{}, {}]}
    half = {**COST, "class_pixels": {"sea": 30, "land": 10}, "failed_blocks": []}
    text = shown(predictions_table({Path("torn.tif"): none, Path("whole.tif"): half}, {Path("bad.tif"): "no image"}))
    assert "sea 0.0, land 0.0; left empty: 2 blocks" in text
    assert "sea 75.0, land 25.0" in text
    assert "failed: no image" in text


def test_absent_classes_are_stated():
    text = shown(evaluation_table("run on val", evaluation([[5, 5], [0, 0]])))
    assert "left out of the means: land" in text
    assert "50.0" in text


def test_distances_are_shown_with_what_has_none():
    measured = evaluation([[5, 5], [1, 9]])
    distances = mean_distances([[1.25, math.inf], [3.25, 8.0]], ["sea", "land"], 3)
    text = shown(evaluation_table("run on val", replace(measured, distances=distances)))
    assert "HD95 px" in text
    assert "2.2 " in text
    assert "8.0 (1)" in text
    assert "about 3 px" in text
    assert "HD95" not in shown(evaluation_table("run on val", measured))


def test_the_comparison_has_a_row_a_method():
    text = shown(comparison_table("title", {"one": evaluation([[9, 1], [1, 9]]), "two": evaluation([[5, 5], [5, 5]])}))
    assert "81.8" in text
    assert "33.3" in text
    assert "250" in text


def test_the_comparison_of_the_demonstration_fits_into_80_columns():
    config = demo_config(Path("demo-output"))
    names = [way for method in methods(config).values() for way in method.looking]
    out = StringIO()
    three = evaluation(np.diag([9, 9, 9]).tolist(), ("sea", "land", "lake"))
    Console(file=out, width=80).print(comparison_table("title", dict.fromkeys(names, three)))
    lines = out.getvalue().splitlines()
    assert all(any(line.startswith(f"│ {name} ") for line in lines) for name in names)


def test_colours_are_those_of_the_classes_and_grey():
    picture = Exclusive().picture(np.array([[0, 1, 255]], np.uint8), [c.rgb for c in CLASSES])
    assert picture.tolist() == [[[0x10, 0x20, 0x30], [0xC0, 0xB0, 0xA0], [128, 128, 128]]]


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (3, np.uint16), (5, np.float32)])
def test_any_image_becomes_colours(bands, dtype):
    pixels = (np.random.default_rng(0).random((bands, 40, 90)) * 200).astype(dtype)
    picture = image_picture(ArrayReader(pixels), longest=30)
    assert picture.shape == (13, 30, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > picture.min()


def test_a_picture_is_no_larger_than_its_image():
    assert screen_size(Size(10, 20), 100) == Size(10, 20)
    assert screen_size(Size(1000, 250), 100) == Size(100, 25)


def test_panels_are_a_picture_with_the_colours_in_it(tmp_path):
    values = np.linspace(64, 256, 40, dtype=np.float32).reshape(5, 8)
    flat = np.full((50, 80, 3), (200, 30, 40), np.uint8)
    save_panels(
        tmp_path / "p.png",
        [Panel("image", flat), Panel("expected field of view", values, (64, 256), "pixels")],
        CLASSES,
    )
    with open_image(tmp_path / "p.png") as picture:
        pixels = picture.read(Window.of(picture.size)).reshape(picture.bands, -1).T[:, :3]
        assert picture.size.width > picture.size.height
    assert ((pixels == (200, 30, 40)).all(axis=1)).mean() > 0.2


def test_facts_of_an_image_in_memory():
    facts = image_facts(ArrayReader(np.zeros((3, 20, 30), np.uint16)))
    assert facts["width x height"].startswith("30 x 20")
    assert facts["bands"] == "3 x uint16"
    assert facts["georeference"] == "none"


def test_facts_say_that_pixels_are_indices(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).quantize(4).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as reader:
        assert image_facts(reader)["bands"] == "1 x uint8, indices into a colour table"


@pytest.mark.parametrize(("height", "width"), [(60, 60), (20, 300), (300, 20)])
def test_nothing_is_stretched_and_no_text_overlaps(height, width):
    classes = [ClassConfig(name=f"class {i} with a long name of ${i}$", color="#102030") for i in range(9)]
    picture = np.zeros((height, width, 3), np.uint8)
    values = np.zeros((height, width), np.float32)
    figure = panels_figure(
        [Panel("a title that is rather long", picture), Panel("values", values, (0, 1))] * 2, classes
    )
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [axes for axes in figure.axes if axes.get_title()]
    for axes in shown:
        box = axes.get_window_extent(renderer)
        assert box.height / box.width == pytest.approx(height / width, rel=0.02)
    texts = [axes.title for axes in shown] + figure.legends[0].get_texts()
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert max(figure.get_size_inches()) < 60
    assert [text.get_parse_math() for text in figure.legends[0].get_texts()] == [False] * 9
