"""What the command line prints is what was said: no name or message is parsed as markup."""

import re
import sys
import tomllib
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from foveate.cli.app import main
from foveate.cli.terminal import PlainConsole, errors, jobs_bar, output, printable, progress_bar
from toys import make_data_set, toy_config, write_config, write_image

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "foveate").rglob("*.py"))
NAMES = [
    "img[red].jpg",
    "scan[/old].tif",
    "[bold]",
    "[/]",
    "a [link=x]b",
    ":smile:.png",
    "\\[red]",
    "50% [",
    "[@click=x]y",
]
# A hint for each extra: what is missing, and a command that needs it.
HINTS = {
    "onnx": (["onnx"], ["export", "DIR/run", "DIR/model.onnx"]),
    "dask": (["distributed"], ["predict", "DIR/run", "DIR/map.tif", "--out", "DIR/out", "--dask", "local"]),
    "demo": (["mpl_toolkits.basemap_data"], ["demo", "--out", "DIR/demo"]),
    "prepare": (["SimpleITK"], ["prepare", "gleason2019", "DIR", "DIR/out", "--fusion", "staple"]),
    "vector": (["pyogrio"], ["train", "DIR/vector.yaml", "--out", "DIR/vector"]),
    "viewer": (["uvicorn"], ["view", "DIR/map.tif", "--no-browser"]),
    "wsi": (["openslide"], ["info", "DIR/broken.svs"]),
    "zarr": (["zarr"], ["info", "DIR/x.zarr"]),
}


def printed(capsys, *arguments, code=2):
    """What the command prints, on one line each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["foveate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == code
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_printed_as_it_is(name, capsys):
    for print_it in (output.print, output.say, errors.print, lambda text: errors.say(text, name, "bold red")):
        print_it(name)
        assert name in "".join(capsys.readouterr())
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    output.print(table)
    assert capsys.readouterr().out.count(name) == 4


@pytest.mark.parametrize("name", NAMES)
def test_bars_show_names_as_they_are(name, monkeypatch):
    console = PlainConsole(force_terminal=True, width=150, record=True, file=StringIO())
    monkeypatch.setattr("foveate.cli.terminal.errors", console)
    with progress_bar(name) as bar:
        bar.of(3, "MP")
        bar.by(0.5)
    with jobs_bar() as jobs:
        jobs.show([name], 1, 2)
    assert console.export_text().count(name) >= 2


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\x1b[31mb\x07\x9b.tif") == "a\\x1b[31mb\\x07\\x9b.tif"
    assert printable("a\udcffb") == "a\\udcffb"
    assert printable("zwei\nZeilen\tü") == "zwei\nZeilen\tü"


def test_without_a_terminal_progress_is_a_line_every_half_minute(monkeypatch):
    console = PlainConsole(force_terminal=False, width=200, record=True, file=StringIO())
    clock = [0.0]
    monkeypatch.setattr("foveate.cli.terminal.errors", console)
    monkeypatch.setattr("foveate.cli.terminal.time.monotonic", lambda: clock[0])
    with progress_bar("scan[red].tif") as bar:
        bar.of(40, "MP")
        for _ in range(8):
            clock[0] += 10
            bar.by(0.1)
    said = console.export_text().splitlines()
    assert said == [
        "scan[red].tif: 30% done, 0.4 MP/s, about 0:01:10 left",
        "scan[red].tif: 60% done, 0.4 MP/s, about 0:00:40 left",
    ]


def test_files_of_any_name_are_described(tmp_path, capsys):
    for name in ("img[red].png", "scan[old].tif", "[bold]x.png"):
        write_image(tmp_path / name, np.zeros((3, 5, 6), np.uint8))
        assert name in printed(capsys, "info", tmp_path / name, code=0).replace("\n", "")


@pytest.mark.parametrize("name", ["scan[/old].tif", "[red]none.tif", "a[/].tif"])
def test_errors_name_any_file(name, tmp_path, capsys):
    assert f"error: no image at {tmp_path / name}" in printed(capsys, "info", tmp_path / name)
    assert name in printed(capsys, "train", tmp_path / f"{name}.yaml")
    assert name in printed(capsys, "view", tmp_path / name)
    assert name in printed(capsys, "report", tmp_path / name)


@pytest.mark.parametrize("extra", HINTS)
def test_a_missing_extra_is_named_as_pip_takes_it(extra, tmp_path, capsys, monkeypatch):
    make_data_set(tmp_path / "toy")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    tree = toy_config(tmp_path)
    write_config(tmp_path / "run" / "config.yaml", tree)
    tree["data"] = {key: value for key, value in tree["data"].items() if key not in ("folder", "split")}
    write_config(tmp_path / "vector.yaml", {**tree, "data": {**tree["data"], "manifest": "labels.csv"}})
    (tmp_path / "labels.csv").write_text(
        "image,mask,split\ntoy/images/a.png,a.gpkg,train\ntoy/images/b.png,a.gpkg,val\n"
    )
    (tmp_path / "a.gpkg").write_bytes(b"no layers")
    write_image(tmp_path / "map.tif", np.zeros((1, 5, 6), np.uint8))
    missing, command = HINTS[extra]
    for module in missing:
        for known in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            monkeypatch.setitem(sys.modules, known, None)
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("foveate.viewer.app", "foveate.data.readers.zarr_reader", "foveate.data.readers.openslide_reader"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert f"pip install 'foveate[{extra}]'" in printed(
        capsys, *(word.replace("DIR", str(tmp_path)) for word in command)
    )


def test_every_hint_names_an_extra_that_there_is_and_is_tested():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    hinted = {extra for path in SOURCES for extra in re.findall(r"'foveate\[([a-z]+)\]'", path.read_text())}
    assert hinted <= set(extras)
    assert hinted <= set(HINTS)


def test_nothing_else_writes_to_the_terminal():
    """One console layer: markup is never turned on, and no other console is made."""
    for path in SOURCES:
        text = path.read_text()
        if path.name == "terminal.py":
            continue
        assert not re.search(r"\[/?(bold|red|yellow|green)[\] ]|from_markup|rich\.markup|rich import print", text), path
        assert not re.search(r"\bConsole\(|\bTextColumn\(", text), path


@pytest.mark.parametrize(
    "command", [["tune", "RUN", "--budgets", "a[/]b"], ["info", "x", "--no[/]such"], ["networks", "--p[/]"]]
)
def test_mistakes_in_options_are_shown_as_typed(command, capsys):
    assert command[-1] in printed(capsys, *command)


@pytest.mark.parametrize(("command", "extra"), [("demo", "demo")])
def test_help_names_extras(command, extra, capsys):
    assert f"foveate[{extra}]" in printed(capsys, command, "--help", code=0)


def test_a_pipe_is_told_each_job_in_a_line(capsys):
    with jobs_bar() as bar:
        bar.show(["train a"], 0, 3)
        bar.show(["train a", "train b[red]"], 0, 3)
        bar.show(["train b[red]"], 1, 3)
        bar.show([], 3, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["0 of 3 done; now train a", "0 of 3 done; now train b[red]"]
    assert lines[2].startswith("3 of 3 done in 0:00:0")
    assert len(lines) == 3
