"""Megapixels per second from file to file, beside the bare network and MONAI's sliding window on the same patches.

Every run is a process of its own: it reads a tiled TIFF, passes patches of 256 px (one field of view), stitches, and
writes a class map. `foveate.predict` and `monai.inferers.sliding_window_inference` take turns, with the same network,
patch, overlap, importance, batch and threads; MONAI's image is read, normalised and written strip by strip, so that
beside what it holds itself, in one piece, there is nothing. The bare network is timed in each process, half before and
half after, on batches of the same shape. Processor seconds count all threads, and say more than wall time where the
computer is shared. Rows are put into the file of results, in the place of earlier ones of the same setting.
Usage: python benchmarks/throughput.py --network tiny lite0 --megapixels 25 100
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import rasterio
import torch
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table
from timing import RESULTS
from torch import Tensor, nn

from foveate import FoveatedSegmenter, ScaleSet, build_network, predict
from foveate.demo import encoder_weights
from foveate.devices import peak_memory_mb
from foveate.foveation.estimators import FixedScale
from foveate.inference.pipeline import ready_to_predict
from foveate.runs.config import RunConfig
from foveate.runs.folder import TrainedRun
from inference import make_image

PATCH, BATCH, OVERLAP = 256, 16, 0.25
MONAI_MODE = {"gaussian": "gaussian", "none": "constant"}
MEAN = STD = 0.5
STRIP = 512
SETTING = ("network", "nominal MP", "blending", "threads")


class Clock(NamedTuple):
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Clock:
        return Clock(*(now - then for now, then in zip(Clock.now(), self, strict=True)))


def main() -> None:
    options = parsed()
    if options.side:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for megapixels in options.megapixels:
            image = make_image(Path(folder) / f"{megapixels}.tif", megapixels)
            for network in options.network:
                # One after the other into the file: a long run that is stopped leaves what it has.
                write(options.results, compared(image, network, megapixels, options))
            image.unlink()


def parsed() -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[25, 100, 400], help="of the images, at most")
    parser.add_argument("--network", nargs="+", choices=["lite0", "tiny"], default=["tiny"])
    parser.add_argument("--blending", choices=list(MONAI_MODE), default="gaussian")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--block", type=int, default=2048, help="inference.block_size")
    parser.add_argument("--batch", default=BATCH, help="inference.batch_size of Foveate's side")
    parser.add_argument("--repeats", type=int, default=2, help="times that the two take turns")
    parser.add_argument("--sample", type=int, default=12, help="batches of the bare network before, and after")
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one by default")
    parser.add_argument("--results", type=Path, default=RESULTS / "throughput.json")
    parser.add_argument("--side", choices=list(SIDES), help="measure one in this process and print JSON")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


# In the process that measures.


def measure(options: Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    segmenter = built(options.network[0])
    run = SIDES[options.side]
    if options.side == "monai":
        import_module(
            "monai.inferers.utils"
        )  # takes seconds, as Foveate's own import does, and is not what is measured
    options.out.mkdir(parents=True, exist_ok=True)
    forward(segmenter.network, 2)
    held = peak_memory_mb()
    before, start = forward(segmenter.network, options.sample), Clock.now()
    passes = run(segmenter, options)
    whole, peak = start.since(), peak_memory_mb()
    after = forward(segmenter.network, options.sample)
    # Half of the comparison before and half after: the speed of a shared machine drifts.
    batch = Clock(*((a + b) / (2 * options.sample) for a, b in zip(before, after, strict=True)))
    return {
        "wall": whole.wall, "cpu": whole.cpu, "batch wall": batch.wall, "batch cpu": batch.cpu,
        "passes": passes, "peak MiB": peak, "before MiB": held,
    }  # fmt: skip


def built(name: str) -> FoveatedSegmenter:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    if name == "lite0":
        network = build_network("fpn", "tf_efficientnet_lite0", classes=3, weights=str(encoder_weights()))
    segmenter = FoveatedSegmenter(network, ScaleSet(PATCH, (PATCH,)), estimator=FixedScale())
    return ready_to_predict(segmenter, torch.device("cpu"))


@torch.inference_mode()
def forward(network: nn.Module, batches: int) -> Clock:
    """What the network alone takes for this many batches."""
    batch = torch.rand(BATCH, 3, PATCH, PATCH)
    start = Clock.now()
    for _ in range(batches):
        network(batch)
    return start.since()


def with_foveate(segmenter: FoveatedSegmenter, options: Namespace) -> int:
    config = RunConfig.parse(
        {
            "data": {"folder": ".", "mean": [MEAN] * 3, "std": [STD] * 3,
                     "classes": [{"name": name, "color": "#808080"} for name in "abc"]},
            "foveation": {"patch_size": PATCH, "fields_of_view": [PATCH], "estimator": {"name": "fixed"}},
            "inference": {"overlap": OVERLAP, "batch_size": options.batch, "blending": options.blending,
                          "block_size": options.block, "outputs": ["classes"]},
        }
    )  # fmt: skip
    run = TrainedRun(config, segmenter, torch.device("cpu"))
    return int(predict(run, options.image, options.out)["passes"])


def with_monai(segmenter: FoveatedSegmenter, options: Namespace) -> int:
    from monai.inferers.utils import sliding_window_inference  # noqa: PLC0415 - in the process that needs it

    passes = 0

    def counted(patches: Tensor) -> Tensor:
        nonlocal passes
        passes += len(patches)
        return segmenter.network(patches)

    with torch.inference_mode():
        logits = sliding_window_inference(
            loaded(options.image)[None], PATCH, BATCH, counted, overlap=OVERLAP, mode=MONAI_MODE[options.blending],
            sigma_scale=0.125,
        )  # fmt: skip
        write_classes(logits[0], options.out / "classes.tif")
    return passes


def loaded(path: Path) -> Tensor:
    """The whole image, normalised (3, H, W) float32, without a second copy of it."""
    with rasterio.open(path) as source:
        image = torch.empty(3, source.height, source.width)
        for strip in strips(source.height, source.width):
            pixels = torch.from_numpy(source.read(window=strip))
            rows = slice(strip.row_off, strip.row_off + strip.height)
            torch.sub(pixels, 255 * MEAN, out=image[:, rows])
            image[:, rows] /= 255 * STD
    return image


def write_classes(logits: Tensor, path: Path) -> None:
    """As `foveate.predict` writes its own before the overviews are made, which are left out here."""
    height, width = logits.shape[1:]
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": height, "width": width, "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        for strip in strips(height, width):
            part = logits[:, strip.row_off : strip.row_off + strip.height]
            # The place of the largest is several times faster by `max` than by `argmax`.
            target.write(part.max(0).indices.byte().numpy(), 1, window=strip)


def strips(height: int, width: int) -> Iterator[Window]:
    return (Window(0, top, width, min(STRIP, height - top)) for top in range(0, height, STRIP))


SIDES: dict[str, Callable[[FoveatedSegmenter, Namespace], int]] = {"foveate": with_foveate, "monai": with_monai}


# In the process that compares.


def compared(image: Path, network: str, megapixels: int, options: Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    same = 0.0
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(dir=image.parent) as out:
            outs = {side: Path(out) / side for side in SIDES}
            for side in SIDES:
                found[side].append(in_new_process(image, network, side, outs[side], options))
            same = agreement(*(next(out.glob("*classes.tif")) for out in outs.values()))
    with rasterio.open(image) as source:
        size = source.height * source.width / 1e6
    setting = dict(zip(SETTING, (network, megapixels, options.blending, options.threads), strict=True))
    setting |= {"block": options.block, "megapixels": round(size, 1)}
    return setting | row_of(size, found["foveate"], found["monai"]) | {"same class, %": same}


def in_new_process(image: Path, network: str, side: str, out: Path, options: Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--image", str(image), "--out", str(out), "--network", network]
    for name in ("blending", "threads", "block", "batch", "sample"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = dict(json.loads(done.stdout.splitlines()[-1]))
    print(network, image.stem, side, result, file=sys.stderr, flush=True)
    return result


def row_of(size: float, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats; a ratio is taken within a repeat, whose two runs followed one another."""

    def median(of: Callable[[dict[str, Any], dict[str, Any]], float]) -> float:
        return statistics.median(of(a, b) for a, b in zip(ours, theirs, strict=True))

    return {
        "MP/s": median(lambda a, _: size / a["wall"]),
        "bare MP/s": median(lambda a, _: size / bare(a, "wall")),
        "MONAI MP/s": median(lambda _, b: size / b["wall"]),
        "whole / bare": median(lambda a, _: a["wall"] / bare(a, "wall")),
        "cpu / bare": median(lambda a, _: a["cpu"] / bare(a, "cpu")),
        "MONAI whole / bare": median(lambda _, b: b["wall"] / bare(b, "wall")),
        "MONAI cpu / bare": median(lambda _, b: b["cpu"] / bare(b, "cpu")),
        "wall / MONAI": median(lambda a, b: a["wall"] / b["wall"]),
        "cpu / MONAI": median(lambda a, b: a["cpu"] / b["cpu"]),
        "passes": ours[0]["passes"],
        "MONAI passes": theirs[0]["passes"],
        "peak MiB": median(lambda a, _: a["peak MiB"]),
        "MONAI peak MiB": median(lambda _, b: b["peak MiB"]),
        "peak / MONAI": median(lambda a, b: a["peak MiB"] / b["peak MiB"]),
        "before MiB": median(lambda a, b: (a["before MiB"] + b["before MiB"]) / 2),
        "wall / MONAI, each": " ".join(f"{a['wall'] / b['wall']:.3g}" for a, b in zip(ours, theirs, strict=True)),
        "cpu / MONAI, each": " ".join(f"{a['cpu'] / b['cpu']:.3g}" for a, b in zip(ours, theirs, strict=True)),
    }


def bare(run: dict[str, Any], clock: str) -> float:
    """Seconds of the network alone for as many batches as the run had."""
    return float(run[f"batch {clock}"]) * -(-run["passes"] // BATCH)


def agreement(first: Path, second: Path) -> float:
    """Percentage of pixels that have the same class in two maps."""
    with rasterio.open(first) as one, rasterio.open(second) as other:
        equal = sum(
            int((one.read(1, window=strip) == other.read(1, window=strip)).sum())
            for strip in strips(one.height, one.width)
        )
        return 100 * equal / (one.height * one.width)


def write(path: Path, row: dict[str, Any]) -> None:
    """Put a row into the results, in the place of an earlier one of the same setting."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []

    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(one[name] for name in (*SETTING, "block"))

    rows = sorted([r for r in rows if key(r) != key(row)] + [row], key=key)
    notes = {"patch": PATCH, "overlap": OVERLAP, "batch": BATCH, "cores": os.cpu_count()}
    path.write_text(json.dumps({"rows": rows, "notes": notes}, indent=2) + "\n")
    Console().print(table(rows))


def table(rows: list[dict[str, Any]]) -> Table:
    """A column for each row: there are more values than fit beside one another."""
    result = Table("throughput", *(f"{row['network']} {row['nominal MP']}" for row in rows))
    for name in rows[0]:
        values = [row[name] for row in rows]
        result.add_row(name, *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    return result


if __name__ == "__main__":
    main()
