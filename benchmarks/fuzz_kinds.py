"""The kinds of files that are changed: how one is made, and how the library uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import rasterio.shutil
import shapely
import torch
from fuzz_images import npy, pixels, raster, see, slide, vrt, written, zarr_image
from safetensors.torch import save_file

from foveate.build import load_checkpoint, seal
from foveate.config_base import with_overrides
from foveate.data.area import load_region
from foveate.data.config import DataConfig
from foveate.data.labels.shapes import read_shapes
from foveate.data.manifest import load_samples
from foveate.data.readers.array import ArrayReader
from foveate.devices import PeakMemory
from foveate.geometry import Window
from foveate.inference.block import StoredBlock, load_block, save_block
from foveate.inference.store import BlockStore
from foveate.networks.parts import load_encoder_weights
from foveate.paper.preparation import _entries
from foveate.reporting.report.comparison_report import write_comparison_report
from foveate.reporting.report.state import RunState, ShownEvaluation
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.tuned import read_tuned, with_tuned
from foveate.texts import sealed
from foveate.training.history import read_history, read_maps
from foveate.viewer.inputs import _summary


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        make: writes one into a folder; the file, or a folder of files.
        use: what comes of it, as something that compares.
        also: another name that an error may use.
        exact: whether it has a checksum, so that no other result is right.
        whole: whether it says how long it is, so that no other result is right where its end is missing.
        text: whether it is a text.
    """

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], Any]
    also: str = ""
    exact: bool = False
    whole: bool = False
    text: bool = False


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
_TRAINED = {"foveate": "1", "seconds": 1.5}
_EVALUATION = {"miou": 0.5, "images": [{"name": "a", "miou": 0.5}], "classes": [{"name": "ground", "iou": 0.25}]}
_METHOD = {
    "seeds": [0, 1], "iou": {"mIoU": {"seeds": [0.5, 0.75], "mean": 0.625}}, "passes_per_megapixel": 10.0,
    "seconds": 1.5, "peak_memory_mb": 100.0, "training_passes": 40,
}  # fmt: skip
_COMPARISON = {"name": "toy", "split": "val", "steps": 5, "methods": {"mean": _METHOD, "fixed_1": _METHOD}}
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
    return [one._asdict() for one in tuned], chosen


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
        return written(name, "\n".join(lines) + "\n")(folder)

    return make


def _use_manifest(path: Path) -> Any:
    return load_samples(DataConfig.parse({"root": str(path.parent), "manifest": path.name, "classes": _CLASSES}))


def _use_region(path: Path) -> Any:
    with ArrayReader(pixels()) as image:
        return load_region(path, image).bounds


_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 150, "width": 170}],
    "categories": [{"id": 7, "name": "disc"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [[1, 1, 90, 1, 90, 80]]},
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": {"size": [150, 170], "counts": [300, 40, 25160]}},
    ],
}
_LABELME = {
    "imageHeight": 150, "imageWidth": 170, "imagePath": "a.png",
    "shapes": [{"label": "disc", "shape_type": "polygon", "points": [[1, 1], [90, 1], [90, 80]]}],
}  # fmt: skip
_CLASSED = {
    "type": "FeatureCollection",
    "features": [one | {"properties": {"class": "disc"}} for one in _REGION["features"]],  # type: ignore[operator]
}


def _package(folder: Path) -> Path:
    outlines = shapely.to_wkb(np.array([shapely.box(1, 1, 90, 80), shapely.box(100, 100, 150, 140)]))
    columns = [np.array(["disc", "disc"], object)]
    pyogrio.raw.write(folder / "a.gpkg", outlines, columns, ["class"], geometry_type="Polygon", crs="EPSG:32633")
    return folder / "a.gpkg"


def _use_shapes(path: Path) -> Any:
    found = read_shapes(path, "a.png")
    return [one.wkt for one in found.geometries], found.labels, str(found.system), found.notes


_PLAN = {"model": "m", "image": {"size": [150, 170]}, "inference": {"overlap": 0.5}}


def _plan(folder: Path) -> Path:
    store = folder / "a.partial"
    store.mkdir()
    return written("plan.json", json.dumps(_PLAN, indent=2))(store)


def _use_plan(path: Path) -> Any:
    store = BlockStore.joining(path.parent, _PLAN, 4)
    return store is not None


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
    layers = {"classes": pixels(1)[0] // 100, "confidence": pixels(1, dtype="float32")}
    block = StoredBlock(Window(0, 170, 150, 170), layers, 12, PeakMemory(10, 0), "", 25500, 3)
    save_block(folder / "00000001.block", block, "plan", 1)
    return folder / "00000001.block"


def _use_block(path: Path) -> Any:
    block = load_block(path, "plan", 1)
    layers = {name: (values.shape, sha256(values.tobytes()).hexdigest()) for name, values in block.layers.items()}
    return block._replace(layers={}), layers


def _maps(folder: Path) -> Path:
    path = folder / "step-00000005.npz"
    arrays = {"probabilities_0": pixels(2, 9, 11, "float16"), "windows": np.array([[0, 0, 72, 88]])}
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
    Kind("configuration", written("config.yaml", RunConfig.parse(_CONFIG).to_yaml()), _use_config, text=True),
    Kind("region", written("region.geojson", json.dumps(_REGION, indent=1)), _use_region, text=True),
    Kind("labels, GeoJSON", written("labels.geojson", json.dumps(_CLASSED, indent=1)), _use_shapes, text=True),
    Kind("labels, COCO", written("labels.json", json.dumps(_COCO, indent=1)), _use_shapes, text=True),
    Kind("labels, LabelMe", written("labels.json", json.dumps(_LABELME, indent=1)), _use_shapes, text=True),
    Kind("labels, GeoPackage", _package, _use_shapes),
    Kind("split list", written("val.odgt", "\n".join(_LINES)), _entries, text=True),
    Kind("plan of blocks", _plan, _use_plan, also="a.partial", exact=True, text=True),
    Kind("tuned", written("tuned.json", sealed(_TUNED)), _use_tuned, exact=True, text=True),
    Kind("trained", written("trained.json", sealed(_TRAINED)), _use_trained, exact=True, text=True),
    Kind("evaluation", written("val.json", sealed(_EVALUATION)), _use_evaluation, exact=True, text=True),
    Kind("comparison", _comparison, _use_comparison, text=True),
    Kind("summary", written("a.json", json.dumps(_SUMMARY, indent=1)), _summary, text=True),
    Kind("history", written("metrics.csv", _HISTORY), read_history, text=True),
    Kind("foveation map", _maps, _use_maps),
    Kind("checkpoint", _checkpoint(True), _use_checkpoint, exact=True),
    Kind("earlier checkpoint", _checkpoint(False), _use_checkpoint, exact=True),
    Kind("encoder .pth", _encoder(".pth"), _use_encoder, whole=True),
    Kind("encoder .safetensors", _encoder(".safetensors"), _use_encoder, whole=True),
    Kind("stored block", _block, _use_block, exact=True),
    Kind("TIFF", raster("a.tif"), see, whole=True),
    Kind(
        "TIFF, deflate", raster("a.tif", tiled=True, blockxsize=64, blockysize=64, compress="deflate"), see, whole=True
    ),
    Kind("TIFF, LZW, pyramid", raster("a.tif", overviews=True, compress="lzw", blockysize=16), see, whole=True),
    Kind("TIFF, JPEG", raster("a.tif", compress="jpeg", tiled=True, blockxsize=64, blockysize=64), see, whole=True),
    Kind("GeoTIFF", raster("a.tif", count=1, dtype="float32", compress="zstd", **_UTM), see, whole=True),
    Kind("COG", raster("a.tif", "COG", compress="deflate", blocksize=128, **_UTM), see, whole=True),
    Kind("BigTIFF", raster("a.tif", bigtiff="yes", tiled=True, blockxsize=64, blockysize=64), see, whole=True),
    Kind("PNG", raster("a.png", "PNG"), see, whole=True),
    Kind("JPEG", raster("a.jpg", "JPEG"), see, whole=True),
    Kind("JPEG 2000", raster("a.jp2", "JP2OpenJPEG"), see, whole=True),
    Kind("BMP", raster("a.bmp", "BMP"), see, whole=True),
    Kind("GIF", raster("a.gif", "GIF", count=1), see, whole=True),
    Kind("WebP", raster("a.webp", "WEBP"), see, whole=True),
    Kind("HFA", raster("a.img", "HFA"), see, whole=True),
    Kind("ENVI", raster("a.dat", "ENVI"), see, whole=True),
    Kind("VRT", vrt, see, text=True),
    Kind("slide", slide, see, whole=True),
    Kind("NPY", npy, see, whole=True),
    Kind("Zarr 2", zarr_image(2), see, whole=True),
    Kind("Zarr 3", zarr_image(3), see, whole=True),
    Kind("Zarr 3, bare chunks", zarr_image(3, compressed=False), see, whole=True),
    Kind("Zarr zip", zarr_image(2, zipped=True), see, whole=True),
]
