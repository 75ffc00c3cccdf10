"""Every command that README, pages and help texts show: understood as it stands, or run on small files, or it is said
what it needs."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from preparation_toys import cityscapes, deepglobe, gleason2019
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.runs.config import RunConfig
from toys import make_data_set, shapes, toy_config, write_config, write_image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
BLOCK = re.compile(r"```(?:console|bash|sh)\n(.*?)```", re.DOTALL)
# What a command needs that no test has; every other one is run, see `test_it_runs`.
NEEDS = {
    r"https?://|s3://": "a server",
    r"--plane": "a stack; stacks are read in the tests of the readers",
    r"^foveate networks$": "minutes for every network; see test_networks_command.py",
    r"\.svs": "a slide; slides are read in the tests of the reader",
    r"--devices (auto|cuda|\d)|--nodes": "several GPUs or computers",
    r"--code ": "code of one's own, see test_examples.py",
    r"--budget \d": "an image of megapixels, of which so few passes see all",
    r"^foveate train .*--devices cpu": "processes of its own, see tests/training/test_training_devices.py",
    r"^foveate demo|demo-output": "minutes; see test_demo.py",
    r"^foveate view (?!.*--export)": "a browser; see tests/viewer",
    r"\$W|\$L|NAME": "files that the page has told to make",
    r"configs/(paper|study)/": "the data sets of the paper; its configurations are checked in test_configs_paper.py",
    r"^foveate (push|export|init)|hf://": "other tests: tests/runs",
    r"^foveate compare|comparisons/": "minutes for every method; see test_comparison.py and test_comparison_report.py",
}


def lines_of(page):
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield re.sub(r"\s+", " ", line[2:]).strip()


def shown():
    """Where a line is shown, and the line without its comment."""
    for page in PAGES:
        for line in lines_of(page):
            yield page.relative_to(ROOT).as_posix(), " ".join(map(quoted, shlex.split(line, comments=True)))
    for name, command in COMMANDS.items():
        for line in re.findall(r"^    (foveate .*)$", command.help or "", re.MULTILINE):
            yield f"foveate {name} --help", " ".join(map(quoted, shlex.split(line, comments=True)))


def quoted(word):
    """As it was: only what the shell would expand stays without quotes."""
    return word if re.search(r"[$*~]", word) else shlex.quote(word)


LINES = sorted({(line, where) for where, line in shown()})
OURS = [(where, line) for line, where in LINES if re.match(r"([A-Z_]+=\S+ )*foveate ", line)]
OTHERS = [(where, line) for line, where in LINES if not re.match(r"([A-Z_]+=\S+ )*foveate ", line)]
RUN = sorted({line for _, line in OURS if not any(re.search(pattern, line) for pattern in NEEDS)})


def words_of(line):
    """Name and arguments of one of our commands."""
    words = shlex.split(line)
    start = words.index("foveate")
    return words[start + 1], words[start + 2 :]


@pytest.mark.parametrize(("where", "line"), OURS)
def test_it_is_understood(where, line):
    name, arguments = words_of(line)
    assert name in COMMANDS, where
    if "hf://" in line:
        return  # asks the hub as it is read
    with COMMANDS[name].make_context(name, list(arguments)) as context:
        given = context.params
    path = given.get("config") or given.get("path")
    if path and str(path).startswith("configs/") and path.name not in ("mine.yaml", "NAME.yaml"):
        changes = [text for text in given.get("overrides") or [] if "$" not in text]
        config = RunConfig.load(ROOT / path, changes, given.get("estimator"))
        assert config.foveation.fields_of_view


@pytest.mark.parametrize(("where", "line"), OTHERS)
def test_what_it_calls_is_there(where, line):
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    if not words or words[0] in ("export", "pip", "tensorboard"):
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
    elif words[0] == "python" and words[1] != "-c":
        text = (ROOT / words[1]).read_text()
        options = [word for word in words if word.startswith("--")]
        assert all(f'"{option}"' in text for option in options), (where, line)
    elif words[0] == "torchrun":
        assert "foveate.cli.app" in words, where
        name, *arguments = words[words.index("foveate.cli.app") + 1 :]
        COMMANDS[name].make_context(name, arguments).close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Small files under the names that the pages use: data sets, configurations, a trained run, images."""
    root = tmp_path_factory.mktemp("workspace")
    data = root / "data"
    make_data_set(data / "toy")
    (root / "configs").mkdir()
    for name in ("mine", "idrid", "dubai", "hrf"):
        shutil.copytree(data / "toy", data / name)
        write_config(root / "configs" / f"{name}.yaml", settings(data, name))
    shutil.copy(root / "configs" / "mine.yaml", root / "mine.yaml")
    (root / "OUT").mkdir()  # of a benchmark
    shutil.copy(root / "configs" / "idrid.yaml", root / "OUT" / "idrid.yaml")
    image, label = shapes(5)
    for name in ("huge.tif", "scene.tif", "map.tif", "scene.png", "scene1.tif", "scene2.tif", "fundus.jpg"):
        write_image(root / name, image)
    for name in ("scene-mask.png", "scene-mask.tif", "scene1-mask.tif", "mask.png"):
        write_image(root / name, label)
    square = [[10, 10], [90, 10], [90, 90], [10, 90], [10, 10]]
    (root / "fields.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    cityscapes(root / "downloads" / "cityscapes")
    deepglobe(root / "downloads" / "deepglobe")
    for name in ("gleason", "gleason2019"):
        gleason2019(root / "downloads" / name)
    for place, name in enumerate(("train", "val", "crossvali", "test")):
        (root / f"{name}.txt").write_text(f"{place}_sat.jpg\n")
    return root


def settings(data, name):
    tree = toy_config(data, steps=2, validate_every=1)
    tree["data"] |= {"folder": name, "root": str(data)}
    tree["foveation"]["fields_of_view"] = [32, 64, 128]
    return {**tree, "name": name}


@pytest.fixture(scope="module")
def trained(workspace):
    """The workspace with a run, a comparison and a prediction, as the pages leave them on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        run("foveate train configs/mine.yaml training.steps=2 --out runs/mine")
        for name in ("dubai", "idrid", "map", "slides", "wide"):
            shutil.copytree("runs/mine", f"runs/{name}")
        run("foveate predict runs/mine scene.tif --out predictions")
    return workspace


def run(line):
    name, arguments = words_of(line)
    result = CliRunner().invoke(app, [name, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


CHEAP = ("prepare", "convert", "info", "config", "networks")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("line", [line for line in RUN if words_of(line)[0] in CHEAP])
def test_it_runs(workspace, tmp_path, monkeypatch, line):
    shutil.copytree(workspace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "here" / "data"))
    name, arguments = words_of(line)
    if name == "convert":
        Path(arguments[1]).unlink(missing_ok=True)  # there for the lines that come after it
    alone = " --jobs 1" if name == "prepare" else ""  # without processes, which are slow to start
    assert run(line.replace("$FOVEATE_DATA", "data") + alone)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in RUN if words_of(line)[0] not in CHEAP])
def test_it_runs_on_a_trained_run(trained, tmp_path, monkeypatch, line):
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "here" / "data"))
    name, arguments = words_of(line)
    if name == "polygons" and arguments[0].startswith("predictions/"):
        Path("predictions/scene.classes.tif").rename(arguments[0])
        arguments = ["ground" if word == "background" else word for word in arguments]
    if name == "predict" and "--resume" not in arguments:
        shutil.rmtree("predictions")
    overwrites = any("--overwrite" in option.opts for option in COMMANDS[name].params)
    more = ["--overwrite"] if overwrites and "--resume" not in arguments else []
    assert run(f"foveate {name} {shlex.join([*arguments, *more])}")
