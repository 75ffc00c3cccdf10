"""Export the network of each look, with its normalisation, as ONNX or as a program of torch.export."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.cascade import CascadeSegmenter
from foveate.data.channels import Normalisation
from foveate.data.images import open_sample
from foveate.data.manifest import load_samples
from foveate.errors import ConfigError, FoveateError, NetworkError
from foveate.files import refuse_existing, written
from foveate.geometry import Size, Window
from foveate.inference.source import PixelSource
from foveate.networks.cascade import NetworkPerScale
from foveate.networks.encoder_decoder import heads_of
from foveate.patches.alignment import Context
from foveate.runs.folder import TrainedRun
from foveate.version import __version__

FORMATS = (".onnx", ".pt2")
_PATCHES = 4  # compared with torch
_MOST_APART = 1e-3  # of a probability
_LARGEST_BATCH = 4096
_INPUTS = ("pixels", "handed", "corners")
_Tensors: TypeAlias = tuple[Tensor, ...]
_Output: TypeAlias = Tensor | _Tensors


class ExportedLook(nn.Module):
    """One look as a plain network: pixels from 0 to 1 in, probabilities over the same window out.

    Args:
        run: the trained run.
        view: its field of view.
        wider: field of view of the look whose context it gets; None for none.
        hands_on: whether it also returns what a closer look gets.
    """

    mean: Tensor
    std: Tensor
    told: Tensor

    def __init__(self, run: TrainedRun, view: int, wider: int | None = None, *, hands_on: bool = False) -> None:
        super().__init__()
        segmenter, data = run.segmenter, run.config.data
        self._scale = segmenter.scales.fields_of_view.index(view)
        self._side = segmenter.scales.patch_size
        self._is_cascade = isinstance(segmenter, CascadeSegmenter)
        self._share, self.hands_on = view / (wider or view), hands_on
        network = segmenter.network
        self.network = network.networks[self._scale] if isinstance(network, NetworkPerScale) else network
        self.register_buffer("mean", torch.tensor(data.channel_mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(data.channel_std).view(-1, 1, 1))
        self.embedding = segmenter.scale_embedding
        self._membership = segmenter.membership
        told = torch.zeros(1, len(segmenter.scales))
        told[0, self._scale] = 1
        self.register_buffer("told", told)

    def forward(self, pixels: Tensor, handed: Tensor | None = None, corners: Tensor | None = None) -> _Output:
        """Probabilities (N, classes, P, P), and of a look that hands on its map (N, D, m, m).

        Args:
            pixels: (N, C, P, P), raw values divided by the scale of the run.
            handed: (N, D, m, m) what the wider look returned for the windows around these.
            corners: (N, 2) top and left of these windows in the wider ones, as shares of the latter's side.
        """
        patches = (pixels - self.mean) / self.std
        if self.embedding is not None:
            patches = self.embedding(patches, self.told)
        if not self._is_cascade:
            return self._probabilities(self.network(patches))
        context = None if handed is None or corners is None else Context(handed, corners, self._share)
        seen = self.network(patches, self._scale, context)
        probabilities = self._probabilities(seen.output)
        return (probabilities, seen.handed) if self.hands_on else probabilities

    def _probabilities(self, output: Any) -> Tensor:
        logits: Any = heads_of(output)[0]
        logits = F.interpolate(logits.float(), (self._side, self._side), mode="bilinear")
        return self._membership.probabilities(logits)


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
    in the wider ones. With `view` the widest look is written alone, as a network of pixels with one output.

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
    views = _views(run, view)
    names = [path if len(views) == 1 else path.with_stem(f"{path.stem}-{one}px") for one in views]
    for name in names:
        refuse_existing(name, overwrite)
    writer = _onnx if path.suffix == ".onnx" else _program
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


_Writer = Callable[[ExportedLook, _Tensors, Path, dict[str, Any]], Callable[..., _Output]]


class _Look(NamedTuple):
    """A look to be exported, and inputs to compare it by."""

    module: ExportedLook
    inputs: _Tensors
    view: int
    wider: int | None


def _looks(run: TrainedRun, view: int | None) -> tuple[list[_Look], str]:
    """The looks to export, narrowest first, each with its inputs; and what these are."""
    views = _views(run, view)
    windows_of, read, compared = _patches(run)
    if not isinstance(run.segmenter, CascadeSegmenter) or views == run.segmenter.views_passed[-1:]:
        alone = [(one, (read(windows_of(one)),)) for one in views]
        return [_Look(ExportedLook(run, one).cpu().eval(), inputs, one, None) for one, inputs in alone], compared
    generator, looks = torch.Generator().manual_seed(0), list[_Look]()
    wider: int | None = None
    handed: _Tensors = ()
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
        looks.insert(0, _Look(look, (read(windows), *context), one, wider))
        with torch.inference_mode():
            wider, handed = one, _each(look(*looks[0].inputs))[1:]
    return [look for look in looks if look.view in views], compared


def _export_one(
    run: TrainedRun, path: Path, look: _Look, compared: str, writer: _Writer, pixel_size: float | None
) -> Exported:
    with written(path, overwrite=True) as partial:
        try:
            loaded = writer(look.module, look.inputs, partial, _metadata(run, look, pixel_size))
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
                f"the export {path} says something else than torch: probabilities differ by {apart:.3g} on {compared}; "
                f"nothing was written"
            )
    return Exported(path, look.view, apart, compared)


def _each(output: _Output) -> _Tensors:
    return (output,) if isinstance(output, Tensor) else output


_Windows: TypeAlias = list[Window]


def _patches(run: TrainedRun) -> tuple[Callable[[int], _Windows], Callable[[_Windows], Tensor], str]:
    """Draws windows of a field of view, and reads patches (4, C, P, P) from 0 to 1, of an image that is there."""
    side, data = run.segmenter.scales.patch_size, run.config.data
    generator = torch.Generator().manual_seed(0)
    try:
        sample = load_samples(data, need_masks=False)[0]
        with open_sample(sample, data) as image:
            size = image.size
    except FoveateError:
        nowhere = [Window(0, 0, 1, 1)] * _PATCHES
        noise = torch.rand(_PATCHES, data.in_channels, side, side, generator=generator)
        return lambda _: nowhere, lambda _: noise, "noise, as no image of the run is there"

    def drawn(view: int) -> _Windows:
        corners = torch.rand(_PATCHES, 2, generator=generator)
        rows = (corners[:, 0] * max(1, size.height - view)).long().tolist()
        cols = (corners[:, 1] * max(1, size.width - view)).long().tolist()
        return [Window(row, col, view, view) for row, col in zip(rows, cols, strict=True)]

    def read(windows: _Windows) -> Tensor:
        with open_sample(sample, data) as image:
            source = PixelSource.of(image, data, torch.device("cpu"))
            found = torch.stack([source.read(window, Size.square(side)).float() for window in windows])
            return torch.nan_to_num(found / source.normalisation.scale)

    return drawn, read, f"{_PATCHES} patches of {sample.image}"


def _exported(look: nn.Module, inputs: _Tensors) -> Any:
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {name: {0: batch} for name, _ in zip(_INPUTS, inputs, strict=False)}
        return torch.export.export(look, inputs, dynamic_shapes=shapes)


def _program(look: ExportedLook, inputs: _Tensors, path: Path, metadata: dict[str, Any]) -> Callable[..., _Output]:
    texts = {"foveate.json": json.dumps(metadata)}
    torch.export.save(_exported(look, inputs), path, extra_files=texts)
    module: Callable[..., _Output] = torch.export.load(path).module()
    return module


def _onnx(look: ExportedLook, inputs: _Tensors, path: Path, metadata: dict[str, Any]) -> Callable[..., _Output]:
    import onnx  # noqa: PLC0415 - an extra
    import onnxruntime  # noqa: PLC0415

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        names = [name for name, _ in zip(_INPUTS, inputs, strict=False)]
        # A name stands for one thing in a graph: what a look between two others hands on is called apart.
        outputs = ["probabilities", "handed_on" if "handed" in names else "handed"]
        program = torch.onnx.export(
            _exported(look, inputs), input_names=names, output_names=outputs[: 1 + look.hands_on], dynamo=True
        )
        assert program is not None
        program.save(path, external_data=False)
    model = onnx.load(path)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*given: Tensor) -> _Output:
        fed = {name: one.numpy() for name, one in zip(names, given, strict=True)}
        found = tuple(torch.from_numpy(one) for one in session.run(None, fed))
        return found if look.hands_on else found[0]

    return run


def _metadata(run: TrainedRun, look: _Look, pixel_size: float | None) -> dict[str, Any]:
    """What the QGIS plug-in Deepness reads, and what others need to use the network.

    Source: Deepness, `processing/models/model_base.py`; values are JSON. It divides by 255 itself, and reads tiles at
    `resolution` centimetres a pixel.
    """
    data, scales, view = run.config.data, run.segmenter.scales, look.view
    metadata: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(label): name for label, name in enumerate(data.class_names)},
        "tile_size": scales.patch_size,
        "tiles_size": scales.patch_size,  # as its documentation calls it
        "tiles_overlap": round(100 * run.config.inference.overlap),
        "seg_thresh": 0.0,
        "standardization_mean": [0.0] * data.in_channels,
        "standardization_std": [1.0] * data.in_channels,
        "foveate": {
            "version": __version__,
            "run": run.config.name,
            "field_of_view": view,
            "patch_size": scales.patch_size,
            "input": "raw values, resampled to the patch size, divided by scale",
            "scale": _scale(run),
            "output": "probabilities over the same window",
        },
    }
    if look.wider is not None:
        metadata["foveate"] |= {
            "handed": f"what the look of {look.wider} px returned as handed, for the windows around these",
            "corners": f"top and left of the windows in those of {look.wider} px, as shares of their side",
        }
    if pixel_size is not None:
        metadata["resolution"] = round(100 * pixel_size * view / scales.patch_size, 6)
    return metadata


def _scale(run: TrainedRun) -> float | str:
    data = run.config.data
    if data.scale is not None:
        return data.scale
    try:
        with open_sample(load_samples(data, need_masks=False)[0], data) as image:
            return Normalisation.of(data, image.dtype).scale
    except FoveateError:
        return "the range of the images' type: 255 for 8 bits"
