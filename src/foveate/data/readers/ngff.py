"""What OME-Zarr's metadata (NGFF 0.4 and 0.5) say: levels, axes, and how large a pixel is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.data.readers.base import Resolution
from foveate.errors import UnsupportedImageError

# UDUNITS-2 names of lengths, as the specification lists them.
_METRES = {
    "angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
    "decimeter": 1e-1, "meter": 1.0, "kilometer": 1e3, "inch": 0.0254, "foot": 0.3048, "yard": 0.9144,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One image of the metadata.

    Attributes:
        axes: their names, such as ("c", "y", "x"); None where the metadata name none.
        paths: of the arrays, finest first.
        scales: per array the factor of each axis, in the units of the axes; None where not given.
        resolution: size of a pixel of the finest array, where a unit of length is given.
    """

    axes: tuple[str, ...] | None
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...] | None, ...]
    resolution: Resolution | None

    def downsample(self, level: int) -> tuple[float, float] | None:
        """Finest pixels per pixel of a level, along rows and columns; None where not known."""
        first, own = self.scales[0], self.scales[level]
        if self.axes is None or first is None or own is None:
            return None
        places = [self.axes.index(name) for name in "yx"]
        if any(first[place] <= 0 or own[place] <= 0 for place in places):
            return None
        return own[places[0]] / first[places[0]], own[places[1]] / first[places[1]]


def attributes_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the metadata are: since 0.5 under "ome", before that at the top."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def channel_names(attributes: Mapping[str, Any], bands: int) -> tuple[str, ...]:
    """Names of the channels, as rendering metadata give them; none unless there is one for each band."""
    omero = attributes_of(attributes).get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list) or len(channels) != bands:
        return ()
    return tuple(str(channel.get("label", "")) if isinstance(channel, Mapping) else "" for channel in channels)


def multiscale_of(attributes: Mapping[str, Any], image: str) -> Multiscale | None:
    """The first image of a group's metadata; None when it has none.

    Raises:
        UnsupportedImageError: when the metadata are not as specified.
    """
    images = attributes_of(attributes).get("multiscales")
    if not images:
        return None
    try:
        return _multiscale(images[0])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UnsupportedImageError(f"the multiscales metadata of {image} are not those of NGFF: {error!r}") from None


def _multiscale(tree: Mapping[str, Any]) -> Multiscale:
    # Until 0.3 axes were names, until 0.2 there were none: always t, c, z, y, x.
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in tree.get("axes", "tczyx")]
    names = tuple("c" if axis.get("type") == "channel" else axis["name"].lower() for axis in axes)
    whole = _scale(tree, len(names)) or (1.0,) * len(names)
    own = [_scale(dataset, len(names)) for dataset in tree["datasets"]]
    scales = tuple(None if scale is None else _product(scale, whole) for scale in own)
    units = [axis.get("unit") for axis in axes]
    paths = tuple(str(dataset["path"]) for dataset in tree["datasets"])
    return Multiscale(names, paths, scales, _resolution(names, units, scales[0]))


def _scale(tree: Mapping[str, Any], axes: int) -> tuple[float, ...] | None:
    for transformation in tree.get("coordinateTransformations", ()):
        if transformation["type"] == "scale" and "scale" in transformation:
            scale = tuple(float(value) for value in transformation["scale"])
            if len(scale) != axes:
                raise ValueError(f"a scale of {len(scale)} numbers for {axes} axes")
            return scale
    return None


def _product(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple(a * b for a, b in zip(first, second, strict=True))


def _resolution(
    names: tuple[str, ...], units: Sequence[str | None], scale: tuple[float, ...] | None
) -> Resolution | None:
    if scale is None:
        return None
    row, col = (scale[place] * _METRES.get(units[place] or "", 0.0) for place in map(names.index, "yx"))
    return Resolution.known(row, col)
