"""Official layouts to manifests, odd cases included."""

import numpy as np
import pytest
from preparation_toys import (
    PALETTE,
    blocks,
    cityscapes,
    cityscapes_scene,
    coloured,
    deepglobe,
    gleason2019,
    gleason_map,
    ids_of,
    picture,
    png,
)

from foveate.data.readers import open_image
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.paper.preparation import Cityscapes, DeepGlobe, Gleason2019, prepare

# Official label id -> train id, from the table of the data set's authors.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip


def prepared(recipe, tmp_path, **options):
    return prepare(recipe, tmp_path / "src", tmp_path / "out", **options)


def test_cityscapes(tmp_path):
    cityscapes(tmp_path / "src")
    summary = prepared(Cityscapes(), tmp_path)
    assert summary.images == {"train": 2, "val": 1}
    mask = ids_of(tmp_path / "out/masks/bad-honnef_000001_000019_leftImg8bit.png")
    assert mask[0, ::2].tolist() == [TRAIN_IDS.get(value, 255) for value in range(34)]
    assert not summary.odd
    assert summary.left_out == {
        "the labels of the test split are not public": ["berlin_000003_000019_leftImg8bit"],
    }
    assert list(summary.pixels)[::9] == ["road", "terrain", "bicycle"]
    assert summary.pixels["sky"] == 2 * 24 * 2
    assert summary.ignored == 2 * 24 * 2 * (34 - 19)


def test_cityscapes_oddities(tmp_path):
    root = cityscapes(tmp_path / "src")
    cityscapes_scene(root, "val", "lindau", 4, None)
    cityscapes_scene(root, "val", "frankfurt", 5, blocks([7, 200]))
    cityscapes_scene(root, "val", "frankfurt", 6, blocks([7]))
    picture(root / "leftImg8bit/val/frankfurt/frankfurt_000006_000019_leftImg8bit.png", (20, 32))
    summary = prepared(Cityscapes(), tmp_path)
    assert summary.images == {"train": 2, "val": 2}
    assert summary.left_out["no *_gtFine_labelIds.png"] == ["lindau_000004_000019_leftImg8bit"]
    assert summary.odd["value 200 is not a label; ignored"].pixels == 24 * 16
    (reason,) = summary.failed.values()
    assert "is 20 x 32 pixels and its mask 24 x 32" in reason


def test_deepglobe(tmp_path):
    deepglobe(tmp_path / "src")
    summary = prepared(DeepGlobe(), tmp_path)
    assert sum(summary.images.values()) == summary.drawn == 6
    assert ids_of(tmp_path / "out/masks/3_sat.png")[0, ::5].tolist() == [0, 1, 2, 3, 4, 5, 255]
    assert list(summary.pixels) == ["urban", "agriculture", "rangeland", "forest", "water", "barren"]
    assert summary.left_out == {"no *_mask.png beside it": ["900_sat"]}
    assert not summary.odd


def test_deepglobe_oddities(tmp_path):
    root = deepglobe(tmp_path / "src", count=2)
    picture(root / "land-train/7_sat.jpg", bands=1)
    png(root / "land-train/7_mask.png", coloured([*PALETTE, (255, 0, 0), (250, 255, 4)]))
    (root / "land-train/._0_sat.jpg").touch()  # systems leave such files in archives
    summary = prepared(DeepGlobe(), tmp_path)
    assert sum(summary.images.values()) == 3
    assert {kind: oddity.images for kind, oddity in summary.odd.items()} == {
        "image of one band, which training repeats": 1,
        "colour (255, 0, 0) is not in the palette, ignored": 1,
        "colour (250, 255, 4) taken as (255, 255, 0)": 1,
    }
    assert summary.odd["colour (255, 0, 0) is not in the palette, ignored"].example == "7_sat"


def test_gleason2019(tmp_path):
    gleason2019(tmp_path / "src")
    summary = prepared(Gleason2019(), tmp_path)
    assert sum(summary.images.values()) == 3
    assert summary.left_out == {"no expert map": ["slide001_core003"]}
    assert set(summary.odd) == {f"maps of {count} experts" for count in (6, 2, 1)}
    assert np.array_equal(ids_of(tmp_path / "out/masks/slide001_core001.png"), blocks([0, 0, 1, 2, 3, 0]))


@pytest.mark.parametrize("pyramid", [False, True])
def test_gleason2019_keeps_the_central_square(tmp_path, pyramid):
    gleason2019(tmp_path / "src", [(1,)])
    whole, mask = tmp_path / "src/Train Imgs/slide001_core000.jpg", blocks([0, 0, 1, 2, 3, 0])
    prepare(Gleason2019(crop=20), tmp_path / "src", tmp_path / "out", pyramid=pyramid)
    suffix, (height, width) = "tif" if pyramid else "png", mask.shape
    top, left = max(0, (height - 20) // 2), max(0, (width - 20) // 2)
    with open_image(tmp_path / f"out/images/slide001_core000.{suffix}") as image, open_image(whole) as before:
        assert image.size == Size(min(20, height), min(20, width))
        assert np.array_equal(image.read(Window.of(image.size)), before.read(Window(top, left, *mask[:20, :20].shape)))
    assert np.array_equal(ids_of(tmp_path / f"out/masks/slide001_core000.{suffix}"), mask[top:, left:][:20, :20])


@pytest.mark.parametrize(
    ("scheme", "classes", "expected"),
    [
        ("4", ("benign", "grade 3", "grade 4", "grade 5"), [0, 0, 1, 2, 3, 0]),
        ("3", ("benign", "grade 3", "grade 4"), [0, 0, 1, 2, 0, 0]),
        ("3-vs-rest", ("rest", "grade 3"), [0, 0, 1, 0, 0, 0]),
        ("4-vs-rest", ("rest", "grade 4"), [0, 0, 0, 1, 0, 0]),
        ("5-vs-rest", ("rest", "grade 5"), [0, 0, 0, 0, 1, 0]),
        ("benign-vs-rest", ("benign", "cancer"), [0, 0, 1, 1, 1, 0]),
    ],
)
def test_gleason2019_classes(tmp_path, scheme, classes, expected):
    gleason2019(tmp_path / "src", [(1, 3)])
    summary = prepared(Gleason2019(scheme=scheme), tmp_path)
    assert tuple(summary.pixels) == classes
    assert np.array_equal(ids_of(tmp_path / "out/masks/slide001_core000.png"), blocks(expected))


@pytest.mark.parametrize("fusion", ["majority", "staple"])
def test_gleason2019_experts_who_disagree(tmp_path, fusion):
    root = gleason2019(tmp_path / "src", [(1,), (1, 2)])
    for expert, values in ((1, [0, 4, 4]), (2, [1, 4, 4]), (3, [6, 4, 5])):
        gleason_map(root, expert, 0, blocks(values))
    gleason_map(root, 2, 1, blocks([0, 1, 3, 4, 5, 9]))
    gleason_map(root, 3, 1, np.zeros((9, 9)))
    summary = prepared(Gleason2019(fusion=fusion), tmp_path)
    assert np.array_equal(ids_of(tmp_path / "out/masks/slide001_core000.png"), blocks([0, 2, 2]))
    assert summary.odd["a map of another size than its image, left out"].example == "slide001_core001"
    assert summary.odd["value 9 is not a label; ignored"].images == 1


def test_gleason2019_ties_are_ignored_and_counted(tmp_path):
    root = gleason2019(tmp_path / "src", [(1,)])
    gleason_map(root, 1, 0, blocks([3, 3]))
    gleason_map(root, 2, 0, blocks([3, 4]))
    summary = prepared(Gleason2019(), tmp_path)
    assert np.array_equal(ids_of(tmp_path / "out/masks/slide001_core000.png"), blocks([1, 255]))
    assert summary.odd["experts disagree evenly, ignored"].pixels == 24 * 16


def test_gleason2019_of_other_sizes_only(tmp_path):
    root = gleason2019(tmp_path / "src", [(1,), (1,)])
    gleason_map(root, 1, 1, np.zeros((9, 9)))
    summary = prepared(Gleason2019(), tmp_path)
    assert "none of the 1 maps" in summary.failed["slide001_core001"]
    assert sum(summary.images.values()) == 1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Cityscapes(), "leftImg8bit; unpack leftImg8bit_trainvaltest"),
        (DeepGlobe(), "no .*_sat.jpg below"),
        (Gleason2019(), "holds 0 images slideNNN_coreNNN.jpg and maps of 0"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_another_layout_is_named(tmp_path, recipe, message):
    with pytest.raises(DatasetError, match=r"no folder .*src; give the folder of the download"):
        prepared(recipe, tmp_path)
    (tmp_path / "src").mkdir()
    with pytest.raises(DatasetError, match=message):
        prepared(recipe, tmp_path)
    assert not (tmp_path / "out").exists()
