"""`foveate polygons` reads a class map and writes GeoJSON."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError, OutputExistsError
from toys import write_image


def invoke(*arguments):
    return CliRunner().invoke(app, ["polygons", *map(str, arguments)], catch_exceptions=False)


def test_polygons_are_written_and_counted(tmp_path):
    ids = np.zeros((1, 40, 50), np.uint8)
    ids[0, 10:20, 10:30], ids[0, 30:32, 5:6] = 1, 1
    source, out = write_image(tmp_path / "c.tif", ids), tmp_path / "c.geojson"
    done = invoke(source, "--out", out, "--leave-out", "class 0", "--min-area", 10)
    assert done.exit_code == 0
    assert "1 polygons in" in done.output
    (feature,) = json.loads(out.read_text())["features"]
    assert feature["properties"]["area_px"] == 200
    with pytest.raises(OutputExistsError):
        invoke(source, "--out", out)
    with pytest.raises(ConfigError, match=r"--coordinates feet; allowed are .*pixels"):
        invoke(source, "--out", out, "--coordinates", "feet")


def test_help_has_examples():
    assert "foveate polygons predictions" in invoke("--help").output
