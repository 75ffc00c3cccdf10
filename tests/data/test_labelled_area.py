"""What is outside an area is not labelled: not counted, not drawn, not scored."""

import json

import numpy as np
import pytest
from data_toys import data_config, smooth_image, write
from test_area import closed, slide_pixels

from foveate.data.area import Area, Polygons
from foveate.data.datamodule import FoveateDataModule
from foveate.data.images import SampleReader, open_labels, open_sample, sample_area
from foveate.data.label_index import index_labels
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.data.readers import ArrayReader
from foveate.errors import DatasetError
from foveate.geometry import Size, Window
from foveate.patches import ScaleSet
from toys import labels_of

SIZE = Size(90, 120)
RING = np.array([[20, 10], [100, 20], [70, 80], [20, 10]], float)


@pytest.fixture
def data_set(tmp_path):
    """An image that holds no data in its first rows, labelled in a triangle."""
    pixels = smooth_image(3, SIZE.height, SIZE.width, np.uint8).clip(1)
    pixels[:, :30] = 0
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    write(tmp_path / "images" / "a.tif", pixels, driver="GTiff", nodata=0)
    mask = np.random.default_rng(0).integers(0, 2, (1, SIZE.height, SIZE.width), dtype=np.uint8)
    mask[0, 0, 0] = 9  # no class, but nothing that counts
    write(tmp_path / "masks" / "a.tif", mask, driver="GTiff")
    polygon = {"type": "Polygon", "coordinates": [closed(RING[:-1].tolist())]}
    (tmp_path / "a.geojson").write_text(json.dumps(polygon))
    (tmp_path / "list.csv").write_text("image,mask,split,roi\nimages/a.tif,masks/a.tif,val,a.geojson\n")
    return tmp_path, mask[0]


def config_of(folder, **changes):
    return data_config(folder, **{"folder": None, "manifest": str(folder / "list.csv"), **changes})


def inside(nodata=True):
    found = Polygons([(RING,)]).inside(Window.of(SIZE))
    found[:30] &= not nodata
    return found


def test_labels_outside_do_not_count(data_set):
    folder, mask = data_set
    for nodata in (True, False):
        config = config_of(folder, use_nodata=nodata)
        (sample,) = load_samples(config)
        with open_labels(sample, config) as labels:
            expected = np.where(inside(nodata), mask, 255)
            assert np.array_equal(labels.read(Window.of(SIZE)), expected)
            assert np.array_equal(labels.read(Window(0, 0, 90, 120), Size(30, 40)), expected[1::3, 1::3])
            counts = index_labels(labels, 2, 8).tally.counts
        assert counts.tolist() == [(expected == 0).sum(), (expected == 1).sum()]


def test_training_locations_carry_the_same_labels(data_set):
    folder, _ = data_set
    config = config_of(folder)
    (sample,) = load_samples(config)
    spec = LocationSpec(ScaleSet(32, (32, 64)), 8, 2, (0, 1), window_labels=True)
    reader = SampleReader(config, spec)
    for _ in range(2):  # its area is made once
        (location,) = reader.read(sample, [(5, 6)])
        with open_labels(sample, config) as labels:
            target = Window(40, 48, 8, 8).centred(32)
            assert np.array_equal(location.label.numpy(), labels.read(target))
    assert {0, 1, 255} == set(location.label.unique().tolist())
    reader.close()


def test_evaluation_asks_for_no_pass_outside(data_set):
    folder, _ = data_set
    config = config_of(folder)
    (sample,) = load_samples(config)
    with open_sample(sample, config) as image:
        area = sample_area(sample, config, image)
        assert np.array_equal(area.inside(Window.of(SIZE)), inside())


def test_a_region_that_is_not_there_is_named(data_set):
    folder, _ = data_set
    (folder / "a.geojson").unlink()
    with pytest.raises(DatasetError, match=r"a\.geojson"):
        load_samples(config_of(folder))


def test_places_are_drawn_over_tissue_only(tmp_path):
    pixels, disc = slide_pixels()
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    write(tmp_path / "images" / "a.tif", pixels, driver="GTiff")
    write(tmp_path / "masks" / "a.tif", disc[None].astype(np.uint8), driver="GTiff")
    config = data_config(tmp_path, tissue=True)
    (sample,) = load_samples(config)
    with open_labels(sample, config, tissue=config.tissue) as labels:
        index = index_labels(labels, 2, 16)
    assert index.tally.counts[1] == disc.sum()
    assert 0 < index.tally.counts[0] < 0.3 * disc.sum()
    with open_labels(sample, config) as labels:
        assert (labels.read(Window.of(labels.size)) == disc).all()
    assert load_samples(data_config(tmp_path))  # nothing else changes


def halves(folder, right=80):
    """The image of the data set twice: the left trains, the right from some column on validates."""
    for name, columns in (("left", (0, 80)), ("right", (right, 120))):
        ring = [[column, row] for row, column in ((0, columns[0]), (0, columns[1]), (90, columns[1]), (90, columns[0]))]
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [closed(ring)]}))
    rows = [f"images/a.tif,masks/a.tif,{split},{name}.geojson" for split, name in (("train", "left"), ("val", "right"))]
    (folder / "list.csv").write_text("\n".join(["image,mask,split,roi", *rows]))
    config = config_of(folder)
    data = FoveateDataModule(config, LocationSpec(ScaleSet(8, (8, 16)), 4, 2, (0, 1)), steps=2)
    data.setup()
    return data


def test_one_scene_trains_and_validates_in_regions_of_its_own(data_set):
    folder, mask = data_set
    data = halves(folder)
    train, val = (part.tally for part in data.class_table.splits)
    assert train.counts.tolist() == [(mask[30:, :80] == c).sum() for c in (0, 1)]
    assert val.counts.tolist() == [(mask[30:, 80:] == c).sum() for c in (0, 1)]
    assert train.left_out[0].tolist() == [(mask[:, 80:] == c).sum() for c in (0, 1)]
    assert train.left_out[1].tolist() == [(mask[:30, :80] == c).sum() for c in (0, 1)]
    assert [note for note in data.notes if "overlap" in note] == []
    batches = list(data.val_dataloader())
    # Targets of 8 x 8 pixels tile the image from -2 on; only the columns from 78 on meet the right.
    assert sum(len(batch.label) for batch in batches) == 12 * 6
    seen = np.concatenate([batch.label.numpy() for batch in batches])
    again = (mask[30:, 114:118] < 2).sum()  # the last targets begin at 114, before those at 110 end
    assert (seen != 255).sum() == val.counts.sum() + again


def test_regions_of_two_splits_that_overlap_are_said(data_set):
    folder, _ = data_set
    (note,) = [note for note in halves(folder, right=70).notes if "overlap" in note]
    assert note.startswith("the regions of a-left (train) and a-right (val) overlap in 900 pixels")


def test_an_area_of_everything_is_none():
    labels = labels_of(ArrayReader(np.zeros((1, 9, 9), np.uint8)), 2, area=Area(Size(9, 9)))
    assert labels._area is None
