"""Export the network of each look, with its normalisation, as ONNX or as a program of torch.export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from foveate.cascade import CascadeSegmenter
from foveate.data.images import open_sample
from foveate.data.manifest import load_samples
from foveate.errors import ConfigError, FoveateError, NetworkError
from foveate.files import refuse_existing, written
from foveate.foveation.estimator import Joint
from foveate.geometry import Size, Window
from foveate.inference.source import PixelSource
from foveate.runs._export_files import (
    ExportedLook,
    ExportedWithSurround,
    LookToExport,
    Output,
    Tensors,
    metadata,
    onnx,
    program,
)
from foveate.runs.folder import TrainedRun

FORMATS = (".onnx", ".pt2")

_PATCHES = 4  # compared with torch

_MOST_APART = 1e-3  # of a probability


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file.
        view: field of view of its look, level-0 pixels.
        apart: largest difference of a probability from torch's, on the patches that were compared.
        compared: what was compared: patches of an image of the run, or noise where none is there.
    """

    path: Path
    view: int
    apart: float
    compared: str


def export(
    run: TrainedRun,
    path: Path,
    *,
    view: int | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> list[Exported]:
    """Write the network of every look that the run passes, each to a file of its own.

    The input is (N, C, P, P): the raw values of a patch, resampled to the patch size and divided by `data.scale` (255
    for 8 bits). The output is (N, classes, P, P): probabilities over the same window. Of several looks the file's
    name gets the field of view: model-512px.onnx. ONNX files hold the metadata that the QGIS plug-in Deepness reads.

    Of a cascade a look also returns `handed`, and the next closer one takes it, with `corners`: where its windows lie
    in the wider ones. With a surround a look takes two pictures, `pixels` and `around`, see the metadata; Deepness has
    no place for the second. With `view` the widest look is written alone, as a network of pixels with one output.

    Args:
        run: the trained run.
        path: ends in .onnx (extra `onnx`) or .pt2 (loaded by `torch.export.load`).
        view: the one field of view to write; all that are passed when None.
        pixel_size: of the images in metres, for Deepness; `data.pixel_size` when None.
        overwrite: replace what is there.

    Raises:
        ConfigError: for another ending, a field of view that is not passed, or a missing package.
        NetworkError: naming the network when it cannot be exported, or when the export says something else than torch.
        OutputExistsError: when a file is there and may not be replaced.
    """
    check_format(path)
    if isinstance(run.segmenter.estimator, Joint):
        raise ConfigError("a network that sees two fields of view in each pass cannot be exported")
    views = _views(run, view)
    names = [path if len(views) == 1 else path.with_stem(f"{path.stem}-{one}px") for one in views]
    for name in names:
        refuse_existing(name, overwrite)
    writer = onnx if path.suffix == ".onnx" else program
    size = pixel_size or run.config.data.working_pixel
    looks, compared = _looks(run, view)
    return [_export_one(run, name, look, compared, writer, size) for name, look in zip(names, looks, strict=True)]


def check_format(path: Path) -> None:
    """Refuse a name that says no format, or one whose packages are missing; call it before any work.

    Raises:
        ConfigError: saying what to do.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the name of an export ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            try:
                import_module(package)
            except ModuleNotFoundError:
                raise ConfigError(f"ONNX files need {package}; pip install 'foveate[onnx]'") from None


def _views(run: TrainedRun, view: int | None) -> tuple[int, ...]:
    passed = run.segmenter.views_passed
    if view is not None and view not in passed:
        raise ConfigError(f"no look of {view} px can be exported; there are {', '.join(map(str, passed))}")
    return passed if view is None else (view,)


_Writer = Callable[[ExportedLook, Tensors, Path, dict[str, Any]], Callable[..., Output]]


def _looks(run: TrainedRun, view: int | None) -> tuple[list[LookToExport], str]:
    """The looks to export, narrowest first, each with its inputs; and what these are."""
    views = _views(run, view)
    windows_of, read, compared = _patches(run)
    if not isinstance(run.segmenter, CascadeSegmenter) or views == run.segmenter.views_passed[-1:]:
        return [_alone(run, one, windows_of(one), read) for one in views], compared
    generator, looks = torch.Generator().manual_seed(0), list[LookToExport]()
    wider: int | None = None
    handed: Tensors = ()
    windows: list[Window] = []
    for one in reversed(run.segmenter.views_passed):
        inside = torch.randint(0, 1 + (wider or one) - one, (_PATCHES, 2), generator=generator)
        corners = inside.tolist()
        windows = (
            [Window(w.top + top, w.left + left, one, one) for w, (top, left) in zip(windows, corners, strict=True)]
            if windows
            else windows_of(one)
        )
        context = (*handed, inside.float() / wider) if wider else ()
        look = ExportedLook(run, one, wider, hands_on=one > run.segmenter.views_passed[0]).cpu().eval()
        looks.insert(0, LookToExport(look, (read(windows, run.segmenter.scales.patch_size), *context), one, wider))
        with torch.inference_mode():
            wider, handed = one, _each(look(*looks[0].inputs))[1:]
    return [look for look in looks if look.view in views], compared


def _alone(run: TrainedRun, view: int, windows: _Windows, read: _Read) -> LookToExport:
    """A look without context, and its inputs."""
    scales = run.segmenter.scales
    parts = scales.parts(scales.fields_of_view.index(view))
    inputs = tuple(read([window.centred(part.view) for window in windows], part.pixels) for part in parts)
    module = ExportedLook(run, view) if len(parts) == 1 else ExportedWithSurround(run, view)
    return LookToExport(module.cpu().eval(), inputs, view, None)


def _export_one(
    run: TrainedRun, path: Path, look: LookToExport, compared: str, writer: _Writer, pixel_size: float | None
) -> Exported:
    with written(path, overwrite=True) as partial:
        try:
            loaded = writer(look.module, look.inputs, partial, metadata(run, look, pixel_size))
        except FoveateError:
            raise
        except Exception as error:  # the exporters raise many kinds
            network = run.config.network
            name = network.factory or f"{network.architecture} with encoder {network.encoder}"
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise NetworkError(f"the network {name} cannot be exported as {path.suffix}: {reason}") from error
        with torch.inference_mode():
            pairs = zip(_each(loaded(*look.inputs)), _each(look.module(*look.inputs)), strict=True)
            apart = max(float((found - wanted).abs().max()) for found, wanted in pairs)
        if not apart <= _MOST_APART:
            raise NetworkError(
                f"the export {path} does not agree with torch: probabilities differ by {apart:.3g} on {compared}; "
                f"nothing was written"
            )
    return Exported(path, look.view, apart, compared)


def _each(output: Output) -> Tensors:
    return (output,) if isinstance(output, Tensor) else output


_Windows: TypeAlias = list[Window]
_Read: TypeAlias = Callable[[_Windows, int], Tensor]


def _patches(run: TrainedRun) -> tuple[Callable[[int], _Windows], _Read, str]:
    """Draws windows of a field of view, and reads pictures (4, C, p, p) from 0 to 1, of an image that is there."""
    data = run.config.data
    generator = torch.Generator().manual_seed(0)
    try:
        sample = load_samples(data, need_masks=False)[0]
        with open_sample(sample, data) as image:
            size = image.size
    except FoveateError:
        nowhere = [Window(0, 0, 1, 1)] * _PATCHES

        def noise(_: _Windows, side: int) -> Tensor:
            return torch.rand(_PATCHES, data.in_channels, side, side, generator=generator)

        return lambda _: nowhere, noise, "noise, because the images of the run were not found"

    def drawn(view: int) -> _Windows:
        corners = torch.rand(_PATCHES, 2, generator=generator)
        rows = (corners[:, 0] * max(1, size.height - view)).long().tolist()
        cols = (corners[:, 1] * max(1, size.width - view)).long().tolist()
        return [Window(row, col, view, view) for row, col in zip(rows, cols, strict=True)]

    def read(windows: _Windows, side: int) -> Tensor:
        with open_sample(sample, data) as image:
            source = PixelSource.of(image, data, torch.device("cpu"))
            found = torch.stack([source.read(window, Size.square(side)).float() for window in windows])
            return torch.nan_to_num(found / source.normalisation.scale)

    return drawn, read, f"{_PATCHES} patches of {sample.image}"
