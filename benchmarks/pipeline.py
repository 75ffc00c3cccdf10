"""What everything but the network costs: processor seconds a megapixel, two cores against one, and a simulated card.

The network costs nothing: it returns what it is given. So what is measured is reading, cutting patches, normalising,
stitching, taking the classes, storing, and the cloud-optimised class map with its overviews.

- `cost`: `foveate.predict` and MONAI's sliding window do the same work with one thread, overviews on both sides, and
  once more without them on MONAI's; processor seconds count all threads of the process.
- `cores`: the same prediction, one core and thread allowed and then two, for one process and for one a core.
- `network`: that with FPN and EfficientNet-Lite0, on an eighth of the pixels.
- `batch`: FPN and EfficientNet-Lite0 on all cores by the size of a batch, `auto` with it, on an eighth of the pixels.
- `card`: each batch takes as long as on a card of so many passes a second, and no core; how busy the card is kept says
  how many cores a real one needs.

Every run is a process of its own. Usage: python benchmarks/pipeline.py [cost cores network batch card] --megapixels 100
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
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import rasterio.shutil
import torch
from throughput import BATCH, MEAN, OVERLAP, PATCH, STD, Clock, built, with_foveate, with_monai
from timing import report
from torch import Tensor, nn

from foveate import FoveatedSegmenter, ScaleSet, open_image
from foveate.data.channels import Normalisation
from foveate.data.sections import ClassConfig
from foveate.devices import peak_memory_mb, share_cores
from foveate.foveation.estimators import FixedScale
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import Prediction
from foveate.inference.session import Session
from foveate.inference.source import PixelSource
from foveate.inference.team import Team, started_team
from foveate.types import Blending
from inference import make_image

# OpenSlide is asked whether a TIFF is a slide.
IMPORTED = {"foveate": ("foveate.runs.predict", "openslide"), "monai": ("monai.inferers.utils",)}
RATES = (2600, 4100)  # passes a second that one H100 makes with U-Net ResNet-50 and with FPN lite0


class Free(nn.Module):
    """A network that returns its input, after the time that a card would take, which costs no core.

    Args:
        rate: passes a second; 0 for no wait.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate, self.passes, self.busy = rate, 0, 0.0
        self.card = Lock()  # there is one

    def __deepcopy__(self, memo: dict[int, Any]) -> Free:
        return self

    def forward(self, patches: Tensor) -> Tensor:
        with self.card:
            self.passes += len(patches)
            if self.rate:
                seconds = len(patches) / self.rate
                time.sleep(seconds)
                self.busy += seconds
        return patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(PARTS))
    parser.add_argument("--megapixels", type=int, default=100)
    parser.add_argument("--blending", choices=["gaussian", "none"], default="gaussian")
    parser.add_argument("--block", type=int, default=2048, help="inference.block_size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="times that what is compared takes turns")
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one by default")
    parser.add_argument("--side", choices=["foveate", "monai", "monai-plain"], help="measure one here and print JSON")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cores", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--network", choices=["free", "lite0"], default="free")
    parser.add_argument("--batch", default=str(BATCH), help="inference.batch_size of Foveate's side")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        image = make_image(Path(folder) / "image.tif", options.megapixels)
        notes = {"megapixels": size_of(image), "cores of the machine": os.cpu_count(), "load": os.getloadavg()[0]}
        for part in options.parts:
            report(f"pipeline-{part}", PARTS[part](image, options), notes)


# In the process that measures.


def measured(options: Namespace) -> dict[str, float]:
    if options.cores:
        os.sched_setaffinity(0, range(options.cores))
    torch.set_num_threads(options.cores or options.threads)
    network = Free(options.rate)
    segmenter = FoveatedSegmenter(network, ScaleSet(PATCH, (PATCH,)), estimator=FixedScale()).eval()
    if options.network != "free":
        segmenter = built(options.network)
        segmenter.network(torch.zeros(1, 3, PATCH, PATCH))  # kernels are chosen at first
    options.out.mkdir(parents=True, exist_ok=True)
    if options.processes > 1:
        return shared(options)
    # What is imported takes seconds, MONAI's a dozen, and is not what is measured.
    for module in IMPORTED["foveate" if options.side == "foveate" else "monai"]:
        import_module(module)
    start = Clock.now()
    passes = with_foveate(segmenter, options) if options.side == "foveate" else with_monai(segmenter, options)
    if options.side == "monai":
        optimise(options.out / "classes.tif")
    clock = start.since()
    return {**clock._asdict(), "passes": passes, "busy": network.busy, "peak": peak_memory_mb()}


def shared(options: Namespace) -> dict[str, float]:
    """As `foveate predict --devices cpu:N` does it, from when all processes are ready."""
    count, out = options.processes, str(options.out)
    with started_team(["cpu"] * count, take_part, str(options.image), out, options.block, options.blending) as team:
        share_cores(count)
        while len(list(options.out.glob("ready*"))) < count - 1:
            time.sleep(0.01)
        job = prediction(str(options.image), out, options.block, options.blending)
        start = Clock.now()
        passes = job.run(Session(team))["passes"]
        return {**start.since()._asdict(), "passes": passes, "busy": 0.0}


def take_part(team: Team, image: str, out: str, block: int, blending: Blending) -> None:
    share_cores(team.local)
    job = prediction(image, out, block, blending)
    Path(out, f"ready {team.rank}").touch()
    while team.hears(0) is None:
        time.sleep(0.01)
    job.help(Session(team))


def prediction(image: str, out: str, block: int, blending: Blending) -> Prediction:
    """That of `throughput.with_foveate`, for a process of several."""
    torch.manual_seed(0)  # the processes have one model
    segmenter = FoveatedSegmenter(Free(), ScaleSet(PATCH, (PATCH,)), estimator=FixedScale())
    plain = Normalisation(255.0, (MEAN,) * 3, (STD,) * 3)
    opener = partial(open_image, image)
    source = PixelSource(opener(), [0, 1, 2], plain, torch.device("cpu"), opener)
    config = InferenceConfig(
        overlap=OVERLAP, batch_size=BATCH, blending=blending, block_size=block, outputs=("classes",)
    )
    classes = [ClassConfig(name=name, color="#808080") for name in "abc"]
    return Prediction(segmenter, source, PredictionFiles.in_folder(Path(out), "out"), classes=classes, config=config)


def optimise(plain: Path) -> None:
    """The class map that MONAI's side wrote as the cloud-optimised file that Foveate writes."""
    options = {"blocksize": 512, "compress": "DEFLATE", "overview_resampling": "MODE"}
    rasterio.shutil.copy(plain, plain.with_name("cog.tif"), driver="COG", **options)


# In the process that compares.


def cost(image: Path, options: Namespace) -> list[dict[str, Any]]:
    sides = ("foveate", "monai", "monai-plain")
    found = turns(image, options, [{"side": side} for side in sides])
    size = size_of(image)
    rows = []
    for side, runs in zip(sides, found, strict=True):
        ours = [run["cpu"] for run in found[0]]
        rows.append(
            {
                "side": side,
                "processor s/MP": middle(run["cpu"] / size for run in runs),
                "wall s": middle(run["wall"] for run in runs),
                "Foveate / this": middle(a / run["cpu"] for a, run in zip(ours, runs, strict=True)),
                "passes": runs[0]["passes"],
            }
        )
    return rows


def cores(image: Path, options: Namespace, network: str = "free") -> list[dict[str, Any]]:
    ways, batch = ([(1, 1), (2, 1), (2, 2)], BATCH) if network == "free" else ([(1, 1), (2, 1)], "auto")
    settings = [
        {"side": "foveate", "cores": count, "processes": processes, "network": network, "batch": batch}
        for count, processes in ways
    ]
    one, *more = turns(image, options, settings)
    return [
        {
            "cores": count,
            "processes": processes,
            "wall s": middle(run["wall"] for run in runs),
            "processor s of the first": middle(run["cpu"] for run in runs),
            "times one core": middle(a["wall"] / b["wall"] for a, b in zip(one, runs, strict=True)),
        }
        for (count, processes), runs in zip(ways, [one, *more], strict=True)
    ]


def with_network(image: Path, options: Namespace) -> list[dict[str, Any]]:
    smaller = an_eighth(image, options)
    return [{"megapixels": size_of(smaller), **row} for row in cores(smaller, options, "lite0")]


def an_eighth(image: Path, options: Namespace) -> Path:
    path = image.with_name("smaller.tif")
    return path if path.exists() else make_image(path, options.megapixels // 8)


def by_batch(image: Path, options: Namespace) -> list[dict[str, Any]]:
    sizes = ("16", "8", "4", "2", "1", "auto")
    settings = [{"side": "foveate", "network": "lite0", "cores": os.cpu_count(), "batch": size} for size in sizes]
    found = turns(an_eighth(image, options), options, settings)
    return [
        {
            "batch": size,
            "wall s": middle(run["wall"] for run in runs),
            "processor s": middle(run["cpu"] for run in runs),
            "16 / this": middle(a["wall"] / b["wall"] for a, b in zip(found[0], runs, strict=True)),
            "peak MiB": middle(run["peak"] for run in runs),
        }
        for size, runs in zip(sizes, found, strict=True)
    ]


def card(image: Path, options: Namespace) -> list[dict[str, Any]]:
    rows = []
    for rate, runs in zip(
        RATES, turns(image, options, [{"side": "foveate", "rate": rate} for rate in RATES]), strict=True
    ):
        rows.append(
            {
                "card, passes/s": rate,
                "reached, passes/s": middle(run["passes"] / run["wall"] for run in runs),
                "card busy, %": middle(100 * run["busy"] / run["wall"] for run in runs),
                "passes per core second": middle(run["passes"] / run["cpu"] for run in runs),
                "cores it needs": middle(rate * run["cpu"] / run["passes"] for run in runs),
            }
        )
    return rows


PARTS = {"cost": cost, "cores": cores, "network": with_network, "batch": by_batch, "card": card}


def turns(image: Path, options: Namespace, settings: list[dict[str, Any]]) -> list[list[dict[str, float]]]:
    """The runs of every setting, which take turns: the speed of a shared machine drifts."""
    found: list[list[dict[str, float]]] = [[] for _ in settings]
    for _ in range(options.repeats):
        for runs, setting in zip(found, settings, strict=True):
            runs.append(in_new_process(image, options, setting))
    return found


def in_new_process(image: Path, options: Namespace, setting: dict[str, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=image.parent) as out:
        command = [sys.executable, __file__, "--image", str(image), "--out", out]
        given = {"blending": options.blending, "block": options.block, "threads": options.threads} | setting
        for name, value in given.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def size_of(image: Path) -> float:
    with rasterio.open(image) as source:
        return float(source.height * source.width / 1e6)


def middle(values: Any) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
