"""What holds for the preparation of every data set."""

import json

import numpy as np
import pytest
from data_toys import read_with_rasterio
from preparation_toys import PALETTE, cityscapes, coloured, deepglobe, gleason2019, ids_of, picture, png

from foveate.data.config import DataConfig
from foveate.data.datamodule import FoveateDataModule
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.readers import open_image
from foveate.errors import DatasetError, OutputExistsError
from foveate.geometry import Size, Window
from foveate.paper.preparation import Cityscapes, DeepGlobe, Gleason2019, prepare
from foveate.patches import ScaleSet


def config_of(out, recipe, **values):
    classes = [{"name": name, "color": [index, 0, 0]} for index, name in enumerate(recipe.classes)]
    return DataConfig.parse({"root": str(out), "manifest": "manifest.csv", "classes": classes, "workers": 0, **values})


def files_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("make", "recipe"),
    [(cityscapes, Cityscapes()), (deepglobe, DeepGlobe()), (gleason2019, Gleason2019())],
    ids=["cityscapes", "deepglobe", "gleason2019"],
)
@pytest.mark.parametrize("pyramid", [False, True], ids=["plain", "pyramid"])
def test_the_manifest_loads_from_anywhere(make, recipe, pyramid, tmp_path):
    make(tmp_path / "src")
    summary = prepare(recipe, tmp_path / "src", tmp_path / "out", pyramid=pyramid)
    (tmp_path / "out/preparation.jsonl").unlink()
    moved = tmp_path / "deeper" / "out"
    moved.parent.mkdir()
    (tmp_path / "out").rename(moved if pyramid else tmp_path / "renamed")
    out = moved if pyramid else tmp_path / "renamed"
    samples = load_samples(config_of(out, recipe))
    assert len(samples) == sum(summary.images.values())
    for sample in samples:
        with open_image(sample.image) as image, open_image(sample.mask) as mask:
            assert image.size == mask.size
            assert image.random_access == mask.random_access == pyramid


def test_pyramids_hold_the_same_pixels_and_blend_no_labels(tmp_path):
    picture(tmp_path / "src/5_sat.jpg", (600, 693))
    png(tmp_path / "src/5_mask.png", coloured(PALETTE, (600, 693)))
    for name in ("plain", "pyramid"):
        prepare(DeepGlobe(), tmp_path / "src", tmp_path / name, pyramid=name == "pyramid")
    mask, image = (tmp_path / "pyramid" / kind / "5_sat.tif" for kind in ("masks", "images"))
    assert np.array_equal(ids_of(mask), ids_of(tmp_path / "plain/masks/5_sat.png"))
    assert np.array_equal(read_with_rasterio(image), read_with_rasterio(tmp_path / "src/5_sat.jpg"))
    with open_image(mask) as reader:
        half = reader.levels[1]
        assert half == Size(300, 347)
        assert set(np.unique(reader.read(Window.of(reader.size), half))) == {0, 1, 2, 3, 4, 5, 255}


def test_prepared_scenes_are_trained_on_grey_ones_too(tmp_path):
    root = deepglobe(tmp_path / "src", count=1)
    picture(root / "land-train/7_sat.jpg", bands=1)
    png(root / "land-train/7_mask.png", coloured(PALETTE))
    lists = {"train": tmp_path / "train.txt"}
    lists["train"].write_text("0_sat.jpg\n7_sat.jpg\n")
    prepare(DeepGlobe(), root, tmp_path / "out", split_lists=lists)
    spec = LocationSpec(ScaleSet(8, (8, 16)), 4, 3, (0, 1))
    data = FoveateDataModule(
        config_of(tmp_path / "out", DeepGlobe(), split={"val": []}),
        spec,
        steps=1,
        images_per_step=2,
        locations_per_image=2,
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.patches.shape == (4, 2, 3, 8, 8)
    assert set(np.unique(batch.label)) <= {*range(6), 255}


def test_any_number_of_processes_writes_the_same(tmp_path):
    deepglobe(tmp_path / "src", count=3)
    shares = []
    prepare(DeepGlobe(), tmp_path / "src", tmp_path / "one", progress=shares.append)
    prepare(DeepGlobe(), tmp_path / "src", tmp_path / "two", jobs=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1, 1]


def interrupted(count):
    """Stops the preparation, as a person would, after so many images."""

    seen = []

    def report(share):
        seen.append(share)
        if len(seen) == count:
            raise KeyboardInterrupt

    return report


def test_an_interrupted_preparation_goes_on(tmp_path):
    deepglobe(tmp_path / "src", count=4)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(DeepGlobe(), tmp_path / "src", out, progress=interrupted(2))
    assert not (out / "manifest.csv").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    with (out / "preparation.jsonl").open("a") as file:
        file.write('{"name": "cut off')
    whole = prepare(DeepGlobe(), tmp_path / "src", tmp_path / "whole")
    summary = prepare(DeepGlobe(), tmp_path / "src", out)
    assert {name: (out / "masks" / name).stat().st_mtime_ns for name in kept} == kept
    assert len(kept) == 2
    assert (summary.pixels, summary.images, summary.odd) == (whole.pixels, whole.images, whole.odd)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert [json.loads(line) for line in (out / "preparation.jsonl").read_text().splitlines()]


def test_nothing_is_overwritten_unasked(tmp_path):
    gleason2019(tmp_path / "src", [(1,)])
    out = tmp_path / "out"
    prepare(Gleason2019(), tmp_path / "src", out)
    before = files_of(out)
    with pytest.raises(OutputExistsError, match=r"prepared already; .*--overwrite"):
        prepare(Gleason2019(scheme="3"), tmp_path / "src", out)
    assert files_of(out) == before
    prepare(Gleason2019(scheme="3"), tmp_path / "src", out, overwrite=True)
    assert files_of(out) != before
    (out / "manifest.csv").unlink()
    with pytest.raises(OutputExistsError, match=r"other settings .scheme was '3', is '4'"):
        prepare(Gleason2019(), tmp_path / "src", out)
    (out / "preparation.jsonl").unlink()
    with pytest.raises(OutputExistsError, match="holds masks of something else"):
        prepare(Gleason2019(), tmp_path / "src", out)


def test_a_damaged_file_stops_no_other(tmp_path):
    root = deepglobe(tmp_path / "src", count=3)
    mask = root / "land-train/1_mask.png"
    mask.write_bytes(mask.read_bytes()[:60])
    summary = prepare(DeepGlobe(), root, tmp_path / "out")
    assert "1_mask.png" in summary.failed["1_sat"]
    assert len(load_samples(config_of(tmp_path / "out", DeepGlobe()))) == 2


def test_nothing_to_prepare(tmp_path):
    picture(tmp_path / "src/1_sat.jpg")
    with pytest.raises(DatasetError, match=r"no image in .* can be used: no \*_mask.png beside it"):
        prepare(DeepGlobe(), tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    png(tmp_path / "src/1_mask.png", np.zeros((3, 9, 9)))
    with pytest.raises(DatasetError, match=r"could be prepared: .*is 24 x 32 pixels and its mask 9 x 9"):
        prepare(DeepGlobe(), tmp_path / "src", tmp_path / "out")
    for folder in ("a", "b"):
        picture(tmp_path / "twice" / folder / "1_sat.jpg")
    with pytest.raises(DatasetError, match="several images of one name, such as 1_sat"):
        prepare(DeepGlobe(), tmp_path / "twice", tmp_path / "out")


def test_split_lists_of_any_kind(tmp_path):
    deepglobe(tmp_path / "src", count=5)
    lists = {split: tmp_path / f"{split}.txt" for split in ("train", "val", "test")}
    lists["train"].write_text("0_sat.jpg\r\n1\n3_mask.png\nsat.h\n77\n\n")
    lists["val"].write_text('{"fpath_img": "land-train/2_sat.jpg", "fpath_segm": "gt/2_label.png", "width": 32}\n')
    lists["test"].write_text("2_sat.jpg\n")
    with pytest.raises(DatasetError, match=r"2_sat\.jpg is in the lists of both val and test"):
        prepare(DeepGlobe(), tmp_path / "src", tmp_path / "out", split_lists=lists)
    lists["test"].write_text("900_sat.jpg\n")
    summary = prepare(DeepGlobe(), tmp_path / "src", tmp_path / "out", split_lists=lists)
    samples = load_samples(config_of(tmp_path / "out", DeepGlobe()))
    splits = {"0_sat": "train", "1_sat": "train", "3_sat": "train", "2_sat": "val"}
    assert {sample.name: sample.split for sample in samples} == splits
    assert summary.left_out["in none of the split lists"] == ["4_sat"]
    assert summary.unknown == ("sat.h", "77", "900_sat.jpg")
    assert summary.drawn == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing.jpg\n", "none of the names in .* is an image of deepglobe"),
        ('{"mask": "1_mask.png"}', "without 'image' or 'fpath_img'"),
        ('{"image": ', "starts like JSON and is not"),
        (None, "no split list at"),
    ],
)
def test_bad_split_lists(tmp_path, text, message):
    deepglobe(tmp_path / "src", count=1)
    if text is not None:
        (tmp_path / "list").write_text(text)
    with pytest.raises(DatasetError, match=message):
        prepare(DeepGlobe(), tmp_path / "src", tmp_path / "out", split_lists={"val": tmp_path / "list"})


@pytest.mark.parametrize(
    ("recipe", "name", "key"),
    [
        (Cityscapes(), "munster_000144_000019_leftImg8bit_cropped_5000_x_0_y_0.png", "munster_000144_000019"),
        (DeepGlobe(), "321711_label.png", "321711"),
        (Gleason2019(), "fused_slide003_core075_classimg_nonconvex.png", "slide003_core075"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_names_of_the_original_lists_are_understood(recipe, name, key):
    assert recipe.key(name) == key
