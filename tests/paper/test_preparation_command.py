"""`foveate prepare`."""

import pytest
from preparation_toys import blocks, cityscapes, cityscapes_scene, deepglobe, gleason2019, gleason_map, ids_of, png
from typer.testing import CliRunner

from foveate.cli import terminal
from foveate.cli.app import app
from foveate.data.readers import open_image
from foveate.errors import ConfigError


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(terminal.output, "_width", 200)  # it read COLUMNS when it was first imported


def invoke(*arguments):
    arguments = ["prepare", *map(str, arguments), "--jobs", "1"]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def words(result):
    return " ".join(result.output.split())


def test_help_has_examples():
    assert "foveate prepare deepglobe" in words(invoke("--help"))


def test_closes_with_what_was_found(tmp_path):
    root = cityscapes(tmp_path / "src")
    cityscapes_scene(root, "val", "munster", 9, blocks([7, 99]))
    result = invoke("cityscapes", root, tmp_path / "out")
    assert result.exit_code == 0
    text = words(result)
    assert "cityscapes: 2 train, 2 val, 0 test" in text
    assert "road │ 864 │" in text  # 2 x 24 x 2, 24 x 16 and 24 x 16
    assert "value 99 is not a label; ignored │ 1 │ 384 │ munster_000009_000019_leftImg8bit" in text
    assert "left out: the labels of the test split are not public │ 1" in text
    assert str(tmp_path / "out/manifest.csv").replace("\n", "") in result.output.replace("\n", "")


def test_split_lists_and_pyramids(tmp_path):
    deepglobe(tmp_path / "src", count=3)
    (tmp_path / "val.txt").write_text("2_sat.jpg\n")
    result = invoke(
        "deepglobe", tmp_path / "src", tmp_path / "out", "--split-list", f"val={tmp_path / 'val.txt'}", "--pyramid"
    )
    assert "deepglobe: 0 train, 1 val, 0 test" in words(result)
    with open_image(tmp_path / "out/images/2_sat.tif") as image:
        assert image.random_access


def test_fusion_and_classes(tmp_path):
    root = gleason2019(tmp_path / "src", [(1, 2, 3)])
    result = invoke("gleason2019", root, tmp_path / "out", "--fusion", "staple", "--classes", "benign-vs-rest")
    assert "cancer" in words(result)
    assert set(ids_of(tmp_path / "out/masks/slide001_core000.png").ravel()) == {0, 1}


def test_files_that_cannot_be_read_make_it_fail_in_part(tmp_path):
    root = gleason2019(tmp_path / "src", [(1,), (1,), (1,)])
    gleason_map(root, 1, 1, blocks([0])).write_bytes(b"no image")
    result = invoke("gleason2019", root, tmp_path / "out")
    assert result.exit_code == 1
    assert "failed: slide001_core001: no reader can open" in words(result)
    assert "1 train" in words(result)


def test_an_existing_result_is_kept(tmp_path):
    root = deepglobe(tmp_path / "src", count=1)
    assert invoke("deepglobe", root, tmp_path / "out").exit_code == 0
    before = ids_of(tmp_path / "out/masks/0_sat.png").copy()
    png(root / "land-train/0_mask.png", blocks([0])[None].repeat(3, 0))
    with pytest.raises(FileExistsError, match="--overwrite"):
        invoke("deepglobe", root, tmp_path / "out")
    assert (ids_of(tmp_path / "out/masks/0_sat.png") == before).all()
    assert invoke("deepglobe", root, tmp_path / "out", "--overwrite").exit_code == 0
    assert (ids_of(tmp_path / "out/masks/0_sat.png") == 255).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ade20k"], "no data set 'ade20k'; there are cityscapes, deepglobe, gleason2019"),
        (["cityscapes", "--fusion", "staple"], "--fusion, --classes and --crop are for gleason2019"),
        (["deepglobe", "--crop", "4400"], "--fusion, --classes and --crop are for gleason2019"),
        (["gleason2019", "--crop", "0"], "--crop 0; give the side of the central square"),
        (["gleason2019", "--fusion", "mean"], "--fusion mean; allowed are majority, staple"),
        (["gleason2019", "--classes", "5"], "--classes 5; allowed are 4, 3, 3-vs-rest"),
        (["deepglobe", "--split-list", "validation=a.txt"], "once for each of train, val, test"),
        (["deepglobe", "--split-list", "a.txt"], "give SPLIT=FILE"),
        (["deepglobe", "--split-list", "val=a", "--split-list", "val=b"], "give SPLIT=FILE, once for each"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, message):
    name, *options = arguments
    with pytest.raises(ConfigError, match=message):
        invoke(name, tmp_path, tmp_path / "out", *options)
