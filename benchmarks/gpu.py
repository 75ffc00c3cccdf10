"""One card: prediction and training against what the card does alone, and prediction against MONAI.

- `predict`: a tiled TIFF to a cloud-optimised class map, by `foveate.predict`; the same number of forward passes on
  random batches in the same process ("the card alone"); and MONAI's sliding window on the same network, patch, overlap
  and batch, with its reading and writing. Each is a process of its own, so that peak memory is its own.
- `train`: the default training against the same steps on one batch that stays on the card; each estimator, with and
  without `training.compile`.

Without network access: weights are random, images and labels are made here. Nothing is begun after six minutes.
`--cpu --tiny` goes through all of it on a processor, in a minute and with numbers that mean nothing.
Usage: python benchmarks/gpu.py [predict train] --megapixels 100 400 --minutes 6
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch
from throughput import MEAN, STD, loaded, write_classes
from timing import RESULTS, report

from foveate import FoveatedSegmenter, ScaleSet, build_network, predict
from foveate.devices import peak_memory_mb
from foveate.foveation.estimators import FixedScale
from foveate.inference.pipeline import ready_to_predict
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder, TrainedRun
from foveate.runs.train import prepare_training
from foveate.training.processes import Processes
from inference import make_image

PATCH, OVERLAP = 256, 0.25
NETWORKS = {"lite0": ("fpn", "tf_efficientnet_lite0"), "resnet50": ("unet", "resnet50")}
TRAININGS = ("fixed", "mixture", "gumbel", "coarse_first")
STEPS, PLACES = 120, 32
IMAGES, SIDE = 8, 2048  # of a data set
TINY = {"megapixels": [1], "networks": ["lite0"], "batch": 2, "precision": "32", "block": "512", "steps": 6,
        "places": 4, "patch": 64}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=["predict", "train"])
    parser.add_argument("--megapixels", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16")
    parser.add_argument("--block", default="4096", help="inference.block_size")
    parser.add_argument("--cpu", dest="device", action="store_const", const="cpu", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small images, few steps: does the script work?")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--places", type=int, default=PLACES, help="training locations of a step")
    parser.add_argument("--patch", type=int, default=PATCH)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=6.0, help="nothing is begun after so many")
    parser.add_argument("--without-monai", action="store_true")
    parser.add_argument("--one", help="measure one in this process and print JSON")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.tiny:
        vars(options).update(TINY)
    if options.one:
        print(json.dumps(measured(options)), flush=True)
        os._exit(0)  # with MONAI and Lightning in one process Python was seen to wait for ever at its end
    end = time.monotonic() + 60 * options.minutes
    notes = {"device": name_of(options.device), "cores": os.cpu_count(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if "predict" in options.parts:
            report("gpu-predict", predictions(Path(folder), options, end), notes, options.results)
        if "train" in options.parts:
            report("gpu-train", trainings(Path(folder), options, end), notes, options.results)


def name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "processor"


# In the process that compares.


def predictions(folder: Path, options: Namespace, end: float) -> list[dict[str, Any]]:
    rows = []
    for megapixels in options.megapixels:
        image = make_image(folder / f"{megapixels}.tif", megapixels)
        for network in options.networks:
            for side in ("foveate", *(() if options.without_monai else ("monai",))):
                if time.monotonic() < end:
                    found = in_new_process(f"predict {network} {side}", options, image)
                    rows.append({"network": network, "MP": megapixels, "side": side, **found})
        image.unlink()
    return rows


def trainings(folder: Path, options: Namespace, end: float) -> list[dict[str, Any]]:
    data = data_set(folder / "data", options.tiny)
    rows = []
    for estimator in TRAININGS:
        for compiled in ("plain", *(() if options.tiny else ("compiled",))):  # a processor compiles for minutes
            if time.monotonic() < end:
                found = in_new_process(f"train {estimator} {compiled}", options, data)
                rows.append({"estimator": estimator, "as": compiled, **found})
    return rows


def in_new_process(one: str, options: Namespace, image: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", one, "--image", str(image)]
    for name in ("batch", "precision", "block", "steps", "places", "patch"):
        command += [f"--{name}", str(getattr(options, name))]
    command += [*(["--cpu"] if options.device == "cpu" else []), *(["--tiny"] if options.tiny else [])]
    print(f"{one}, {image.name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"failed": float(done.returncode)}
    result = dict(json.loads(done.stdout.splitlines()[-1]))
    print(one, image.name, result, file=sys.stderr, flush=True)
    return result


# In the process that measures.


def measured(options: Namespace) -> dict[str, Any]:
    kind, name, how = options.one.split()
    return predicted(name, how, options) if kind == "predict" else trained(name, how == "compiled", options)


def predicted(name: str, side: str, options: Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    network = build_network(*NETWORKS[name], classes=3, weights=None)
    segmenter = FoveatedSegmenter(network, ScaleSet(options.patch, (options.patch,)), estimator=FixedScale())
    segmenter = ready_to_predict(segmenter, device)
    forward(segmenter, options, 4)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        work = with_foveate if side == "foveate" else with_monai
        passes = work(segmenter, options, Path(out))
    seconds = time.perf_counter() - start
    alone = forward(segmenter, options, -(-passes // options.batch))
    return {
        "seconds": seconds, "card alone, s": alone, "ratio": seconds / alone, "passes": passes,
        "host MiB": peak_memory_mb(), "card MiB": card_memory(device),
    }  # fmt: skip


def card_memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


@torch.inference_mode()
def forward(segmenter: FoveatedSegmenter, options: Namespace, batches: int) -> float:
    """Seconds that the card takes for so many batches, with nothing else to do."""
    device = torch.device(options.device)
    side = options.patch
    batch = torch.rand(options.batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    done(device)
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
        for _ in range(batches):
            segmenter.network(batch)
    done(device)
    return time.perf_counter() - start


def done(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_foveate(segmenter: FoveatedSegmenter, options: Namespace, out: Path) -> int:
    block = options.block if options.block == "auto" else int(options.block)
    config = RunConfig.parse(
        {
            "data": {"folder": ".", "mean": [MEAN] * 3, "std": [STD] * 3,
                     "classes": [{"name": name, "color": "#808080"} for name in "abc"]},
            "foveation": {"patch_size": options.patch, "fields_of_view": [options.patch],
                          "estimator": {"name": "fixed"}},
            "inference": {"overlap": OVERLAP, "batch_size": options.batch, "blending": "gaussian",
                          "block_size": block, "precision": options.precision, "outputs": ["classes"]},
        }
    )  # fmt: skip
    run = TrainedRun(config, segmenter, torch.device(options.device))
    return int(predict(run, options.image, out)["passes"])


def with_monai(segmenter: FoveatedSegmenter, options: Namespace, out: Path) -> int:
    """As its documentation says for images larger than the card: the image stays in main memory, windows go up."""
    from monai.inferers.utils import sliding_window_inference  # noqa: PLC0415 - in the process that needs it

    device, passes = torch.device(options.device), 0

    def counted(patches: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += len(patches)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            return segmenter.network(patches).float()

    with torch.inference_mode():
        logits = sliding_window_inference(
            loaded(options.image)[None], options.patch, options.batch, counted, overlap=OVERLAP, mode="gaussian",
            sigma_scale=0.125, sw_device=device, device=torch.device("cpu"),
        )  # fmt: skip
        write_classes(logits[0], out / "classes.tif")
    return passes


def data_set(folder: Path, tiny: bool) -> Path:
    """Tiled images of blobs with their masks."""
    images, side = (3, 512) if tiny else (IMAGES, SIDE)
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = rng.integers(0, 3, (side // 64, side // 64), dtype=np.uint8)
        mask = np.kron(coarse, np.ones((64, 64), np.uint8))
        noise = rng.integers(0, 60, (3, side, side), dtype=np.uint8)
        for part, pixels in (("images", noise + 60 * mask), ("masks", mask[None])):
            path = folder / part / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"driver": "GTiff", "dtype": "uint8", "count": len(pixels), "height": side, "width": side,
                       "tiled": True, "blockxsize": 256, "blockysize": 256,
                       "transform": rasterio.Affine.scale(2.0)}  # fmt: skip
            with rasterio.open(path, "w", **profile) as target:
                target.write(pixels)
    return folder


def training_config(estimator: str, compiled: bool, options: Namespace) -> RunConfig:
    return RunConfig.parse(
        {
            "name": "gpu",
            "data": {"folder": str(options.image), "split": {"val": ["2"]},
                     "classes": [{"name": name, "color": color} for name, color in
                                 (("a", "#202020"), ("b", "#808080"), ("c", "#e0c040"))]},
            "foveation": {"patch_size": options.patch,
                          "fields_of_view": [options.patch * factor for factor in (1, 2, 4)],
                          "estimator": {"name": estimator}},
            "network": {"architecture": "fpn", "encoder": "tf_efficientnet_lite0", "weights": None},
            "training": {"steps": options.steps, "locations_per_step": options.places, "images_per_step": 4,
                         "precision": options.precision, "validate_every": options.steps, "compile": compiled,
                         "validation_locations": options.places},
        }
    )  # fmt: skip


def trained(estimator: str, compiled: bool, options: Namespace) -> dict[str, Any]:
    """Places a second of a default training, after its first third, and of one batch that stays on the card."""
    config = training_config(estimator, compiled, options)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_training(config, RunFolder(Path(folder) / "run"))
        pace, kind = Pace(options), "gpu" if options.device == "cuda" else "cpu"
        prepared.fit(progress=False, callbacks=[pace], processes=Processes.of(accelerator=kind))
    own, kept = pace.places_per_second, pace.kept_places_per_second
    return {
        "places/s": own, "kept batch, places/s": kept, "share": own / kept,
        "host MiB": peak_memory_mb(), "card MiB": card_memory(torch.device(options.device)),
    }  # fmt: skip


class Pace(pl.Callback):
    """Measures the last two thirds of a training, then the same steps on its last batch."""

    def __init__(self, options: Namespace) -> None:
        self.options, self.first = options, options.steps // 3
        self.steps, self.start, self.places_per_second, self.kept_places_per_second = 0, 0.0, 0.0, 1.0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        self.steps += 1
        if self.steps == self.first:
            self.start = self._now(module)
        if self.steps == self.options.steps - 1:  # before the last step, which validates
            count = self.steps - self.first
            self.places_per_second = count * self.options.places / (self._now(module) - self.start)
            self.kept_places_per_second = self._kept(trainer, module, batch, count)

    def _kept(self, trainer: Any, module: Any, batch: Any, count: int) -> float:
        """Forward, loss, backward and the optimiser's step, by plain torch: what the card can do."""
        optimizer, bf16 = trainer.optimizers[0], self.options.precision == "bf16"

        def step() -> None:
            with torch.autocast(module.device.type, torch.bfloat16, enabled=bf16):
                output = module._predict(batch, module._draw())
                segmenter = module.segmenter
                loss = segmenter.estimator.loss(segmenter, output, batch, module.loss).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            type(optimizer).step(optimizer)
            optimizer.zero_grad()

        for _ in range(5):
            step()
        start = self._now(module)
        for _ in range(count):
            step()
        return count * self.options.places / (self._now(module) - start)

    def _now(self, module: Any) -> float:
        done(module.device)
        return time.perf_counter()


if __name__ == "__main__":
    main()
