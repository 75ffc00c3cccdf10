"""Polygons as a layer: drawn at any scale, compared with what they are, as labels too."""

import json

import numpy as np
import pytest
import shapely
from viewer_toys import HEIGHT, NAMES, POLYGONS, WIDTH, on_ground, write_polygons

from foveate.data.readers import open_image
from foveate.data.sections import ClassConfig, VectorsConfig
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.polygons import BORDER, Polygons
from foveate.viewer.rendering import NOT_COUNTED, RIGHT, WRONG
from foveate.viewer.scene import Options

WHOLE = Window(0, 0, HEIGHT, WIDTH)


def layer_of(scene, kind):
    return next(layer for layer in scene.layers if layer.kind == kind)


def drawn(layer, window=WHOLE, size=None):
    return layer.rendering.draw(None, window, size or window.size)


def test_the_polygons_of_a_prediction_are_drawn_where_they_lie(toy):
    layer = layer_of(build_scene(find_inputs([toy.image, toy.first])), "polygons")
    codes = drawn(layer)
    assert [(entry.name, entry.code) for entry in layer.classes] == [("disc", 1), ("ground", 2)]
    # In the colours of the class map.
    assert [entry.color for entry in layer.classes] == ["#e0c040", "#202020"]
    left, top, right, bottom = POLYGONS["disc"]
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[top:bottom, left:right] = True
    near = np.zeros_like(inside)
    near[top - 1 : bottom + 1, left - 1 : right + 1] = True
    assert (codes[inside] > 0).all()
    assert (codes[~near] == 0).all()
    assert codes[150, 150] == 1
    assert codes[250, 250] == 2
    assert codes[150, left] == 1 + BORDER
    assert codes[250, 200] == 2 + BORDER


def test_tiles_of_a_coarser_level_fit_together(toy):
    layer = layer_of(build_scene(find_inputs([toy.image, toy.first])), "polygons")
    whole = drawn(layer, Window(0, 0, 640, 640), Size(160, 160))
    tiles = [[drawn(layer, Window(r, c, 320, 320), Size(80, 80)) for c in (0, 320)] for r in (0, 320)]
    assert np.array_equal(np.block(tiles), whole)
    assert (whole > BORDER).sum() == pytest.approx(4 * 80 + 4 * 25, abs=12)  # lines a pixel wide


def test_small_polygons_stay_in_sight_however_far_away():
    squares = shapely.box(np.arange(0, 4000, 40.0), 10, np.arange(3, 4003, 40.0), 13)
    polygons = Polygons(np.asarray(squares), np.ones(100, np.uint8), ("nucleus",))
    codes = polygons(None, Window(0, 0, 40, 4000), Size(1, 100))
    assert (codes == 1 + BORDER).all()


def test_labels_may_be_polygons_and_errors_are_found_by_the_names_of_classes(toy):
    scene = build_scene(find_inputs([toy.image, toy.first], toy.first / "scene.polygons.geojson"))
    verdict = layer_of(scene, "errors").rendering.draw(open_image, WHOLE, WHOLE.size)
    disc, ground = NAMES.index("disc"), NAMES.index("ground")
    assert verdict[150, 150] == (RIGHT if toy.classes[150, 150] == disc else WRONG)
    assert verdict[250, 250] == (RIGHT if toy.classes[250, 250] == ground else WRONG)
    assert verdict[600, 600] == NOT_COUNTED  # nobody says what is outside


def test_with_a_run_the_outside_and_the_order_are_as_in_training(toy):
    classes = [ClassConfig(name=name, color="#000000") for name in NAMES]
    options = Options(classes=classes, vectors=VectorsConfig(order="classes", classes={"ground": "<b>hostile</b>"}))
    scene = build_scene(find_inputs([toy.image, toy.first], toy.first / "scene.polygons.geojson"), options)
    verdict = layer_of(scene, "errors").rendering.draw(open_image, WHOLE, WHOLE.size)
    assert verdict[600, 600] == (RIGHT if toy.classes[600, 600] == 0 else WRONG)  # the first class
    assert verdict[250, 250] == (RIGHT if toy.classes[250, 250] == 2 else WRONG)


def test_polygons_alone_are_shown_over_an_image(toy, tmp_path):
    file = write_polygons(tmp_path / "mine.geojson")
    scene = build_scene(find_inputs([toy.image, file]))
    layer = layer_of(scene, "polygons")
    assert layer.shown
    assert scene.predictions == ("mine",)


def test_polygons_of_another_place_are_refused(toy, tmp_path):
    file = tmp_path / "other.geojson"
    file.write_text(write_polygons(tmp_path / "a.geojson").read_text().replace("40", "70"))
    with pytest.raises(DatasetError, match=r"none of the 2 polygons in .*other.geojson lies on"):
        build_scene(find_inputs([toy.image, file]))


def test_what_was_repaired_is_said(toy, tmp_path):
    file = tmp_path / "bow.geojson"
    tree = json.loads(write_polygons(file).read_text())
    ring = on_ground((100, 100, 200, 200))
    tree["features"][0]["geometry"]["coordinates"] = [[ring[0], ring[2], ring[1], ring[3], ring[0]]]
    file.write_text(json.dumps(tree))
    scene = build_scene(find_inputs([toy.image, file]))
    assert any("repaired" in notice for notice in scene.notices)
