"""Exports: complete or not there, never over something else, and the same pixels as served."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ImageReadError, OutputExistsError, UnsupportedImageError
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.page import MARK, TileGrid, export


@pytest.fixture(scope="module")
def scene(toy):
    return build_scene(find_inputs([toy.image, toy.first], toy.labels))


@pytest.fixture(scope="module")
def exported(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "page"
    told = []
    tiles = export(scene, folder, progress=told.append)
    assert told[-1] == 1
    assert told == sorted(told)
    assert tiles == len(told)
    return folder


def test_every_tile_is_there(exported, scene):
    for number, layer in enumerate(scene.layers):
        ending = "jpg" if layer.rendering.media == "jpg" else "js"
        wanted = {f"{level}/{col}_{row}.{ending}" for level, col, row in TileGrid(layer.size, scene.tile)}
        folder = exported / "tiles" / f"{number}_files"
        assert {str(file.relative_to(folder)) for file in folder.rglob("*.*")} == wanted


def test_scripts_hold_the_codes(exported, toy, tmp_path):
    text = (exported / "tiles" / "2_files" / "10" / "1_0.js").read_text()
    name, data = re.fullmatch(r'foveateTile\("([^"]*)","([A-Za-z0-9+/=]*)"\);', text).groups()
    assert name == "2_files/10/1_0"
    (tmp_path / "tile.png").write_bytes(base64.b64decode(data))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "tile.png")), toy.classes[:256, 256:512])


def test_the_page_brings_all_it_needs_and_no_machine_paths(exported, toy):
    html = (exported / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', html):
        assert (exported / name).is_file()
    assert (exported / "static/vendor/openseadragon-LICENSE.txt").is_file()
    assert json.loads((exported / MARK).read_text())["scripts"] is True
    assert str(toy.image.parent) not in html + (exported / MARK).read_text()
    assert 'Width="900" Height="700"' in (exported / "tiles" / "0.dzi").read_text()


def test_existing_folders_are_kept(exported, scene, tmp_path):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export(scene, exported)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not an earlier export"):
        export(scene, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (exported / "old").write_text("")
    export(scene, exported, overwrite=True)
    assert not (exported / "old").exists()


def test_a_failed_export_leaves_nothing(toy, tmp_path):
    path = tmp_path / "torn.tif"
    path.write_bytes(toy.image.read_bytes())
    scene = build_scene(find_inputs([path]))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with pytest.raises((ImageReadError, UnsupportedImageError), match="torn"):
        export(scene, tmp_path / "page")
    assert [file.name for file in tmp_path.iterdir()] == ["torn.tif"]


def test_the_command_line_exports_and_names_mistakes(toy, tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(app, ["view", *map(str, arguments)])

    result = invoke(toy.image, toy.first, "--export", tmp_path / "page", "--tile", 128)
    assert result.exit_code == 0, result.output
    assert "index.html" in result.output
    assert "Examples:" in invoke("--help").output
    for arguments, reason in (
        ((toy.image, "--bands", "a"), "--bands a"),
        ((tmp_path / "gone.tif",), "nothing at"),
        ((toy.image, "--export", tmp_path / "page"), "--overwrite"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert reason in str(result.exception)
