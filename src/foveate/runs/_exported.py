"""What an export holds: looks as plain networks, patches to compare them on, and files of ONNX or torch.export."""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch

from foveate.cascade import CascadeSegmenter
from foveate.data import Normalisation, load_samples, open_sample
from foveate.errors import ConfigError, FoveateError
from foveate.geometry import Size, Window
from foveate.inference.source import PixelSource
from foveate.networks import Context, NetworkPerScale, heads_of
from foveate.package import __version__
from foveate.patches.scales import assembled, middle_of
from foveate.runs.folder import TrainedRun

LARGEST_BATCH = 4096
PATCHES = 4  # compared with torch

Tensors: TypeAlias = tuple[torch.Tensor, ...]
Output: TypeAlias = torch.Tensor | Tensors
_Windows: TypeAlias = list[Window]
_Read: TypeAlias = Callable[[_Windows, int], torch.Tensor]


class ExportedLook(torch.nn.Module):
    """One look as a plain network: pixels from 0 to 1 in, probabilities over the same window out.

    Args:
        run: the trained run.
        view: its field of view.
        wider: field of view of the look whose context it gets; None for none.
        hands_on: whether it also returns what a closer look gets.
    """

    input_names: ClassVar[tuple[str, ...]] = ("pixels", "handed", "corners")

    mean: torch.Tensor
    std: torch.Tensor
    told: torch.Tensor

    def __init__(self, run: TrainedRun, view: int, wider: int | None = None, *, hands_on: bool = False) -> None:
        super().__init__()
        segmenter, data = run.segmenter, run.config.data
        self._scale = segmenter.scales.fields_of_view.index(view)
        self._side = segmenter.scales.middle
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

    def forward(
        self, pixels: torch.Tensor, handed: torch.Tensor | None = None, corners: torch.Tensor | None = None
    ) -> Output:
        """Probabilities (N, classes, P, P), and of a look that hands on its map (N, D, m, m).

        Args:
            pixels: (N, C, P, P), raw values divided by the scale of the run.
            handed: (N, D, m, m) what the wider look returned for the windows around these.
            corners: (N, 2) top and left of these windows in the wider ones, as shares of the latter's side.
        """
        patches = self._taken(pixels)
        if not self._is_cascade:
            return self._probabilities(self.network(patches))
        context = None if handed is None or corners is None else Context(handed, corners, self._share)
        seen = self.network(patches, self._scale, context)
        probabilities = self._probabilities(seen.heads[0])
        return (probabilities, seen.handed) if self.hands_on else probabilities

    def _taken(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = (pixels - self.mean) / self.std
        return patches if self.embedding is None else self.embedding(patches, self.told)

    def _probabilities(self, output: Any) -> torch.Tensor:
        logits: Any = heads_of(output)[0]
        logits = torch.nn.functional.interpolate(logits.float(), (self._side, self._side), mode="bilinear")
        return self._membership.probabilities(logits)


class ExportedWithSurround(ExportedLook):
    """A look at patches with a surround: pictures of the field of view and of all around it in, probabilities out."""

    input_names: ClassVar[tuple[str, ...]] = ("pixels", "around")

    def __init__(self, run: TrainedRun, view: int) -> None:
        super().__init__(run, view)
        self._scales = run.segmenter.scales
        channels = len(self.mean)
        sides = (part.pixels for part in self._scales.parts(self._scale))
        # What is kept for later calls is made of real tensors now, not of those that are traced.
        assembled([torch.zeros(1, channels, side, side) for side in sides], self._scales)

    def forward(self, pixels: torch.Tensor, around: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Probabilities (N, classes, m, m) over the field of view.

        Args:
            pixels: (N, C, m, m) of the field of view, raw values divided by the scale of the run.
            around: (N, C, w, w) of the window around the same centre that the surround reaches to.
        """
        patches = self._taken(assembled([pixels, around], self._scales))
        logits: Any = heads_of(self.network(patches))[0]
        return self._probabilities(middle_of(logits, self._scales.middle_share))


class LookToExport(NamedTuple):
    """A look to be exported, and inputs to compare it by."""

    module: ExportedLook
    inputs: Tensors
    view: int
    wider: int | None


def views_to_export(run: TrainedRun, view: int | None) -> tuple[int, ...]:
    """The fields of view to write: of every look that is passed, or the one that is asked for."""
    passed = run.segmenter.views_passed
    if view is not None and view not in passed:
        raise ConfigError(f"no look of {view} px can be exported; there are {', '.join(map(str, passed))}")
    return passed if view is None else (view,)


def looks_to_export(run: TrainedRun, views: tuple[int, ...]) -> tuple[list[LookToExport], str]:
    """The looks to export, narrowest first, each with its inputs; and what these are."""
    windows_of, read, compared = _patches(run)
    if not isinstance(run.segmenter, CascadeSegmenter) or views == run.segmenter.views_passed[-1:]:
        return [_alone(run, one, windows_of(one), read) for one in views], compared
    generator, looks = torch.Generator().manual_seed(0), list[LookToExport]()
    wider: int | None = None
    handed: Tensors = ()
    windows: list[Window] = []
    for one in reversed(run.segmenter.views_passed):
        inside = torch.randint(0, 1 + (wider or one) - one, (PATCHES, 2), generator=generator)
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
            wider, handed = one, each(look(*looks[0].inputs))[1:]
    return [look for look in looks if look.view in views], compared


def _alone(run: TrainedRun, view: int, windows: _Windows, read: _Read) -> LookToExport:
    """A look without context, and its inputs."""
    scales = run.segmenter.scales
    parts = scales.parts(scales.fields_of_view.index(view))
    inputs = tuple(read([window.centred(part.view) for window in windows], part.pixels) for part in parts)
    module = ExportedLook(run, view) if len(parts) == 1 else ExportedWithSurround(run, view)
    return LookToExport(module.cpu().eval(), inputs, view, None)


def each(output: Output) -> Tensors:
    """All that a network returns."""
    return (output,) if isinstance(output, torch.Tensor) else output


def _patches(run: TrainedRun) -> tuple[Callable[[int], _Windows], _Read, str]:
    """Draws windows of a field of view, and reads pictures (4, C, p, p) from 0 to 1, of an image that is there."""
    data = run.config.data
    generator = torch.Generator().manual_seed(0)
    try:
        sample = load_samples(data, need_masks=False)[0]
        with open_sample(sample, data) as image:
            size = image.size
    except FoveateError:
        nowhere = [Window(0, 0, 1, 1)] * PATCHES

        def noise(_: _Windows, side: int) -> torch.Tensor:
            return torch.rand(PATCHES, data.in_channels, side, side, generator=generator)

        return lambda _: nowhere, noise, "noise, because the images of the run were not found"

    def drawn(view: int) -> _Windows:
        corners = torch.rand(PATCHES, 2, generator=generator)
        rows = (corners[:, 0] * max(1, size.height - view)).long().tolist()
        cols = (corners[:, 1] * max(1, size.width - view)).long().tolist()
        return [Window(row, col, view, view) for row, col in zip(rows, cols, strict=True)]

    def read(windows: _Windows, side: int) -> torch.Tensor:
        with open_sample(sample, data) as image:
            source = PixelSource.of(image, data, torch.device("cpu"))
            found = torch.stack([source.read(window, Size.square(side)).float() for window in windows])
            return torch.nan_to_num(found / source.normalisation.scale)

    return drawn, read, f"{PATCHES} patches of {sample.image}"


def exported(look: ExportedLook, inputs: Tensors) -> Any:
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {name: {0: batch} for name, _ in zip(look.input_names, inputs, strict=False)}
        return torch.export.export(look, inputs, dynamic_shapes=shapes, strict=False)  # torch 2.6 is strict by default


def program(look: ExportedLook, inputs: Tensors, path: Path, metadata: dict[str, Any]) -> Callable[..., Output]:
    texts = {"foveate.json": json.dumps(metadata)}
    torch.export.save(exported(look, inputs), path, extra_files=texts)
    return torch.export.load(path).module()


def onnx(look: ExportedLook, inputs: Tensors, path: Path, metadata: dict[str, Any]) -> Callable[..., Output]:
    import onnx  # noqa: PLC0415 - an extra
    import onnxruntime  # noqa: PLC0415

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        names = [name for name, _ in zip(look.input_names, inputs, strict=False)]
        # A name stands for one thing in a graph: what a look between two others hands on is called apart.
        outputs = ["probabilities", "handed_on" if "handed" in names else "handed"]
        program = torch.onnx.export(
            exported(look, inputs), input_names=names, output_names=outputs[: 1 + look.hands_on], dynamo=True
        )
        assert program is not None
        program.save(path, external_data=False)
    model = onnx.load(path)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*given: torch.Tensor) -> Output:
        fed = {name: one.numpy() for name, one in zip(names, given, strict=True)}
        found = tuple(torch.from_numpy(one) for one in session.run(None, fed))
        return found if look.hands_on else found[0]

    return run


def metadata(run: TrainedRun, look: LookToExport, pixel_size: float | None) -> dict[str, Any]:
    """What the QGIS plug-in Deepness reads, and what others need to use the network.

    Source: Deepness, `processing/models/model_base.py`; values are JSON. It divides by 255 itself, and reads tiles at
    `resolution` centimetres a pixel.
    """
    data, scales, view = run.config.data, run.segmenter.scales, look.view
    metadata: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(label): name for label, name in enumerate(data.class_names)},
        "tile_size": scales.middle,
        "tiles_size": scales.middle,  # as its documentation calls it
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
    if scales.surround is not None:
        sharp, around = scales.parts(scales.fields_of_view.index(view))
        metadata["foveate"] |= {
            "input": f"pixels: raw values of the field of view, resampled to {sharp.pixels} px, divided by scale",
            "around": f"the same of the {around.view} px around the same centre, resampled to {around.pixels} px",
            "output": "probabilities over the field of view",
        }
    if look.wider is not None:
        metadata["foveate"] |= {
            "handed": f"what the look of {look.wider} px returned as handed, for the windows around these",
            "corners": f"top and left of the windows in those of {look.wider} px, as shares of their side",
        }
    if pixel_size is not None:
        metadata["resolution"] = round(100 * pixel_size * view / scales.middle, 6)
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
