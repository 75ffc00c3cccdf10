"""The kinds of files that are changed: how one is made, and how the library uses it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import torch
import zarr
from safetensors.torch import save_file

from foveate.checkpoint import load_checkpoint, seal
from foveate.config_base import with_overrides
from foveate.data.area.geojson import load_region
from foveate.data.config import DataConfig
from foveate.data.manifest import load_samples
from foveate.data.readers import open_image
from foveate.data.readers.array import ArrayReader
from foveate.geometry import Size, Window
from foveate.inference.cost import PeakMemory
from foveate.inference.store import StoredBlock, load_block, save_block
from foveate.networks.weights import load_encoder_weights
from foveate.reporting.report.comparison_report import write_comparison_report
from foveate.reporting.report.shown_evaluation import ShownEvaluation
from foveate.reporting.report.state import RunState
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.tuned import read_tuned, with_tuned
from foveate.texts import sealed
from foveate.training.foveation_history import read_maps
from foveate.training.history import read_history
from foveate.viewer.inputs import _summary


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        make: writes one into a folder; the file, or a folder of files.
        use: what comes of it, as something that compares.
        exact: whether it has a checksum, so that no other result is right.
        whole: whether it says how long it is, so that no other result is right where its end is missing.
        text: whether it is a text.
    """

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], Any]
    exact: bool = False
    whole: bool = False
    text: bool = False


def _pixels(bands: int = 3, height: int = 150, width: int = 170, dtype: str = "uint8") -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    waves = np.stack([100 + 60 * np.sin(rows / (9 + b)) + 60 * np.cos(cols / (11 + b)) for b in range(bands)])
    return (waves + np.random.default_rng(0).normal(0, 3, waves.shape)).clip(0, 255).astype(dtype)


def _raster(name: str, driver: str = "GTiff", overviews: bool = False, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pixels = _pixels(options.get("count", 3), dtype=options.get("dtype", "uint8"))
        profile = {"driver": driver, "count": len(pixels), "height": 150, "width": 170, "dtype": "uint8", **options}
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(pixels)
        if overviews:
            with rasterio.open(folder / name, "r+") as file:
                file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        return folder / name

    return make


def _slide(folder: Path) -> Path:
    path = folder / "a.svs"
    about = "Aperio Image Library v11.2.1\r\n170x150 (64x64) RGB|AppMag = 20|MPP = 0.25"
    profile = {"driver": "GTiff", "count": 3, "height": 150, "width": 170, "dtype": "uint8", "compress": "jpeg"}
    with rasterio.open(path, "w", tiled=True, blockxsize=64, blockysize=64, **profile) as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=about)
        file.write(_pixels())
    return path


def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", _pixels())
    return folder / "a.npy"


def _zarr(version: int, *, zipped: bool = False, compressed: bool = True) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        options = {} if compressed else {"compressors": None}
        levels = [_pixels(), _pixels()[:, ::2, ::2]]
        group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=version)
        for i, level in enumerate(levels):
            array = group.create_array(str(i), shape=level.shape, chunks=(1, 64, 64), dtype=level.dtype, **options)
            array[:] = level
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
        scales = [{"type": "scale", "scale": [1, 0.25 * 2**i, 0.25 * 2**i]} for i in range(2)]
        sets = [{"path": str(i), "coordinateTransformations": [scales[i]]} for i in range(2)]
        images = [{"version": "0.4", "axes": axes, "datasets": sets}]
        group.attrs.update(
            {"multiscales": images} if version == 2 else {"ome": {"version": "0.5", "multiscales": images}}
        )
        if zipped:
            shutil.make_archive(str(folder / "a"), "zip", folder / "a.zarr")
            shutil.rmtree(folder / "a.zarr")
            return folder / "a.zip"
        return folder / "a.zarr"

    return make


def _vrt(folder: Path) -> Path:
    source = _raster("source.tif")(folder)
    rasterio.shutil.copy(source, folder / "a.vrt", driver="VRT")
    return folder / "a.vrt"


def _written(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return make


def see(path: Path) -> Any:
    """Everything that an image shows."""
    with open_image(path) as reader:
        if reader.size.pixels > 10_000_000:  # what was changed says so; nobody reads all of it here
            return reader.size, reader.bands, reader.read(Window(0, 0, 64, 64)).tobytes()
        whole = Window.of(reader.size)
        parts = [reader.read(whole), reader.read(whole, Size(37, 42)), reader.valid(whole)]
        facts = (reader.size, reader.bands, str(reader.dtype), reader.georeference, reader.resolution)
        return facts, [sha256(part.tobytes()).hexdigest() for part in parts]


_CLASSES = [{"name": "ground", "color": "#202020"}, {"name": "disc", "color": "#e0c040"}]
_CONFIG = {
    "name": "toy",
    "data": {"root": ".", "folder": "toy", "classes": _CLASSES, "split": {"val": ["c"]}, "bands": [1, 2, 3]},
    "foveation": {"patch_size": 32, "fields_of_view": [32, 64], "overview_downsample": 8},
    "network": {"architecture": "unet", "encoder": "resnet18", "weights": None},
    "training": {"steps": 5},
}
_TUNED = {
    "chosen": [
        {"budget": 30.0, "looks": [[64, 1.0]], "fusion": [1.0], "miou": 0.5},
        {"budget": 60.0, "looks": [[32, 0.5], [64, 1.0]], "fusion": [3.0, 1.0], "miou": 0.625},
    ],
    "trials": [{"looks": [[64, 1.0]], "miou": 0.5}],
}
_EVALUATION = {"miou": 0.5, "images": [{"name": "a", "miou": 0.5}], "classes": [{"name": "ground", "iou": 0.25}]}
_METHOD = {
    "seeds": [0, 1], "iou": {"mIoU": {"seeds": [0.5, 0.75], "mean": 0.625}}, "passes_per_megapixel": 10.0,
    "seconds": 1.5, "peak_memory_mb": 100.0, "training_passes": 40,
}  # fmt: skip
_COMPARISON = {"name": "toy", "split": "val", "steps": 5, "methods": {"mean": _METHOD, "patch_1": _METHOD}}
_REGION = {
    "type": "FeatureCollection",
    "features": [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in ([[1, 1], [90, 1], [90, 80], [1, 1]], [[100, 100], [150, 100], [120, 140], [100, 100]])
    ],
}
_SUMMARY = {"height": 150, "image": "a.tif", "class_pixels": {"ground": 3}, "passes": 12}


def _use_config(path: Path) -> Any:
    return with_overrides(RunConfig.load(path, ["training.steps=7"]).tree(), ["name=b"])


def _use_tuned(path: Path) -> Any:
    tuned, config = read_tuned(path), RunConfig.parse(_CONFIG)
    chosen = [with_tuned(config.inference, tuned, config.foveation.estimator, 32).tree() for _ in range(2)]
    return [one.tree() for one in tuned], chosen


def _use_trained(path: Path) -> Any:
    state = RunState(RunFolder(path.parent), RunConfig.parse(_CONFIG), [], [], "", [], [])
    return state.training_cost


def _use_evaluation(path: Path) -> Any:
    class State:
        newest_weights = 0.0

    shown = ShownEvaluation.read(path, State())  # type: ignore[arg-type]
    return None if shown is None else shown.tree


def _comparison(folder: Path) -> Path:
    (folder / "comparison.json").write_text(sealed(_COMPARISON), encoding="utf-8")
    return folder / "comparison.json"


def _use_comparison(path: Path) -> Any:
    out = path.parent / "page.html"
    write_comparison_report(path.parent, out, overwrite=True)
    return out.exists()


def _samples(name: str, lines: list[str]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for stem in "ab":
            for kind in ("image", "mask"):
                (folder / f"{kind}s").mkdir(exist_ok=True)
                (folder / f"{kind}s" / f"{stem}.png").touch()
        return _written(name, "\n".join(lines) + "\n")(folder)

    return make


def _use_manifest(path: Path) -> Any:
    return load_samples(DataConfig.parse({"root": str(path.parent), "manifest": path.name, "classes": _CLASSES}))


def _use_region(path: Path) -> Any:
    with ArrayReader(_pixels()) as image:
        return load_region(path, image).bounds


def _checkpoint(is_sealed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        generator = torch.Generator().manual_seed(0)
        weights = {f"segmenter.{i}.weight": torch.randn(30, 40, generator=generator) for i in range(4)}
        torch.save({"state_dict": weights, "config": _CONFIG, "global_step": 5}, folder / "best.ckpt")
        if is_sealed:
            seal(folder / "best.ckpt")
        return folder / "best.ckpt"

    return make


def _use_checkpoint(path: Path) -> Any:
    state = load_checkpoint(path)
    weights = {key: sha256(value.numpy().tobytes()).hexdigest() for key, value in state["state_dict"].items()}
    return weights, state["config"], state["global_step"]


def _encoder(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tensors = torch.nn.Conv2d(3, 8, 3).state_dict()
        path = folder / f"encoder{suffix}"
        if suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return path

    return make


def _use_encoder(path: Path) -> Any:
    layer = torch.nn.Conv2d(3, 8, 3)
    load_encoder_weights(layer, path)
    return layer.weight.detach().numpy().tobytes()


def _block(folder: Path) -> Path:
    layers = {"classes": _pixels(1)[0] // 100, "confidence": _pixels(1, dtype="float32")}
    block = StoredBlock(Window(0, 170, 150, 170), layers, 12, PeakMemory(10, 0), "", 25500, 3)
    save_block(folder / "00000001.block", block, "plan", 1)
    return folder / "00000001.block"


def _use_block(path: Path) -> Any:
    block = load_block(path, "plan", 1)
    layers = {name: (values.shape, sha256(values.tobytes()).hexdigest()) for name, values in block.layers.items()}
    return block._replace(layers={}), layers


def _maps(folder: Path) -> Path:
    path = folder / "step-00000005.npz"
    arrays = {"probabilities_0": _pixels(2, 9, 11, "float16"), "windows": np.array([[0, 0, 72, 88]])}
    np.savez_compressed(path, step=5, names=np.array(["a"]), **arrays)
    return path


def _use_maps(path: Path) -> Any:
    return [(one.step, one.name, one.window, one.probabilities.tobytes()) for one in read_maps(path)]


_HISTORY = "step,train/loss,val/miou\n1,0.9,\n2,0.8,0.25\n3,0.7,\n4,0.6,0.5\n"
_ROWS = ["image,mask,split,pixel_size", "images/a.png,masks/a.png,train,0.5 um", "images/b.png,masks/b.png,val,"]
_LINES = [
    '{"image": "images/a.png", "mask": "masks/a.png", "split": "train"}',
    '{"fpath_img": "images/b.png", "fpath_segm": "masks/b.png"}',
]
_UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5000000), "nodata": 7}

KINDS = [
    Kind("manifest", _samples("list.csv", _ROWS), _use_manifest, text=True),
    Kind("manifest of lines", _samples("list.odgt", _LINES), _use_manifest, text=True),
    Kind(
        "configuration",
        _written("config.yaml", RunConfig.parse(_CONFIG).to_yaml()),
        _use_config,
        text=True,
    ),
    Kind("region", _written("region.geojson", json.dumps(_REGION, indent=1)), _use_region, text=True),
    Kind("tuned", _written("tuned.json", sealed(_TUNED)), _use_tuned, exact=True, text=True),
    Kind(
        "trained",
        _written("trained.json", sealed({"foveate": "1", "seconds": 1.5})),
        _use_trained,
        True,
        False,
        True,
    ),
    Kind("evaluation", _written("val.json", sealed(_EVALUATION)), _use_evaluation, exact=True, text=True),
    Kind("comparison", _comparison, _use_comparison, text=True),
    Kind("summary", _written("a.json", json.dumps(_SUMMARY, indent=1)), _summary, text=True),
    Kind("history", _written("metrics.csv", _HISTORY), read_history, text=True),
    Kind("foveation map", _maps, _use_maps),
    Kind("checkpoint", _checkpoint(True), _use_checkpoint, exact=True),
    Kind("earlier checkpoint", _checkpoint(False), _use_checkpoint, exact=True),
    Kind("encoder .pth", _encoder(".pth"), _use_encoder, whole=True),
    Kind("encoder .safetensors", _encoder(".safetensors"), _use_encoder, whole=True),
    Kind("stored block", _block, _use_block, exact=True),
    Kind("TIFF", _raster("a.tif"), see, whole=True),
    Kind(
        "TIFF, deflate", _raster("a.tif", tiled=True, blockxsize=64, blockysize=64, compress="deflate"), see, whole=True
    ),
    Kind("TIFF, LZW, pyramid", _raster("a.tif", overviews=True, compress="lzw", blockysize=16), see, whole=True),
    Kind("TIFF, JPEG", _raster("a.tif", compress="jpeg", tiled=True, blockxsize=64, blockysize=64), see, whole=True),
    Kind("GeoTIFF", _raster("a.tif", count=1, dtype="float32", compress="zstd", **_UTM), see, whole=True),
    Kind("COG", _raster("a.tif", "COG", compress="deflate", blocksize=128, **_UTM), see, whole=True),
    Kind("BigTIFF", _raster("a.tif", bigtiff="yes", tiled=True, blockxsize=64, blockysize=64), see, whole=True),
    Kind("PNG", _raster("a.png", "PNG"), see, whole=True),
    Kind("JPEG", _raster("a.jpg", "JPEG"), see, whole=True),
    Kind("JPEG 2000", _raster("a.jp2", "JP2OpenJPEG"), see, whole=True),
    Kind("BMP", _raster("a.bmp", "BMP"), see, whole=True),
    Kind("GIF", _raster("a.gif", "GIF", count=1), see, whole=True),
    Kind("WebP", _raster("a.webp", "WEBP"), see, whole=True),
    Kind("HFA", _raster("a.img", "HFA"), see, whole=True),
    Kind("ENVI", _raster("a.dat", "ENVI"), see, whole=True),
    Kind("VRT", _vrt, see, text=True),
    Kind("slide", _slide, see, whole=True),
    Kind("NPY", _npy, see, whole=True),
    Kind("Zarr 2", _zarr(2), see, whole=True),
    Kind("Zarr 3", _zarr(3), see, whole=True),
    Kind("Zarr 3, bare chunks", _zarr(3, compressed=False), see, whole=True),
    Kind("Zarr zip", _zarr(2, zipped=True), see, whole=True),
]
