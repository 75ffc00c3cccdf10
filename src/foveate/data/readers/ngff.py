"""What is Zarr, and which arrays of a group make an image: OME-Zarr's metadata (NGFF 0.4 and 0.5), or plain arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from foveate.data.readers.array import ImageAxes
from foveate.data.readers.base import Address, OpenOptions, Plane
from foveate.errors import UnsupportedImageError
from foveate.geometry import Resolution, Size

if TYPE_CHECKING:
    import zarr

    from foveate.data.readers.zarr_reader import ZarrReader

    Array: TypeAlias = zarr.Array[Any]
    Node: TypeAlias = Array | zarr.Group

# UDUNITS-2 names of lengths, as the specification lists them.
_METRES = {
    "angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
    "decimeter": 1e-1, "meter": 1.0, "kilometer": 1e3, "inch": 0.0254, "foot": 0.3048, "yard": 0.9144,
}  # fmt: skip
_SIGNS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def open_zarr(location: Address, options: OpenOptions) -> ZarrReader | None:
    """The registry's entry: None when there are no Zarr metadata; of a URL when no part of it ends in .zarr."""
    if not _is_zarr(location):
        return None
    from foveate.data.readers.zarr_reader import ZarrReader  # noqa: PLC0415 - its package is an extra

    return ZarrReader(location, options.plane)


def _is_zarr(location: Address) -> bool:
    if location.is_virtual:
        return False
    if location.is_remote:
        return any(part.lower().endswith(".zarr") for part in location.path.parts)
    if location.path.is_dir():
        return any((location.path / name).is_file() for name in _SIGNS)
    if location.path.suffix.lower() not in (".zip", ".zarr", ".ozx") or not zipfile.is_zipfile(location.path):
        return False
    with zipfile.ZipFile(location.path) as file:
        return any(name in _SIGNS for name in file.namelist())


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One image of the metadata."""

    axes: tuple[str, ...]  # their names, such as ("c", "y", "x")
    paths: tuple[str, ...]  # of the arrays, finest first
    downsamples: tuple[
        tuple[float, float] | None, ...
    ]  # finest pixels per pixel of each, rows and columns, where known
    resolution: Resolution | None  # size of a pixel of the finest array, where a unit of length is given


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
        raise UnsupportedImageError(f"the multiscales metadata of {image} do not follow NGFF: {error!r}") from None


def _multiscale(tree: Mapping[str, Any]) -> Multiscale:
    # Until 0.3 axes were names, until 0.2 there were none: always t, c, z, y, x.
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in tree.get("axes", "tczyx")]
    names = tuple("c" if axis.get("type") == "channel" else axis["name"].lower() for axis in axes)
    whole = _scale(tree, names) or (1.0, 1.0)
    scales = [_scale(dataset, names) for dataset in tree["datasets"]]
    units = {name: _METRES.get(axis.get("unit") or "", 0.0) for name, axis in zip(names, axes, strict=True)}
    row, col = scales[0] or (0.0, 0.0)
    resolution = Resolution.known(row * whole[0] * units.get("y", 0.0), col * whole[1] * units.get("x", 0.0))
    downsamples = tuple((own[0] / row, own[1] / col) if own and min(row, col, *own) > 0 else None for own in scales)
    return Multiscale(names, tuple(str(dataset["path"]) for dataset in tree["datasets"]), downsamples, resolution)


def _scale(tree: Mapping[str, Any], axes: tuple[str, ...]) -> tuple[float, float] | None:
    """Along rows and columns."""
    for transformation in tree.get("coordinateTransformations", ()):
        if transformation["type"] == "scale" and "scale" in transformation:
            scale = dict(zip(axes, map(float, transformation["scale"]), strict=True))
            return scale["y"], scale["x"]
    return None


@dataclass(frozen=True, slots=True)
class ZarrImage:
    """The arrays of one image."""

    format: str  # "OME-Zarr" or "Zarr"
    levels: list[Array]  # its pyramid, finest first
    axes: ImageAxes  # which axis of each is which
    extents: list[Size]  # level-0 pixels that each level covers
    resolution: Resolution | None  # size of a pixel of level 0, where known
    names: tuple[str, ...] = ()  # of the bands, where known


def image_in(node: Node, name: str, plane: Plane | None = None) -> ZarrImage:
    """The image in an array, an image's group, a group of arrays, or one that `bioformats2raw` wrote around an image.

    Raises:
        UnsupportedImageError: when it is no image.
        SeveralPlanesError: naming an axis of several planes of which none was chosen.
    """
    import zarr  # noqa: PLC0415 - an extra

    if isinstance(node, zarr.Array):
        return _plain([node], name, plane)
    described = multiscale_of(node.attrs, name)
    if described is not None:
        return _described(node, described, name, plane)
    if "bioformats2raw.layout" in attributes_of(node.attrs) and "0" in node:
        return image_in(node["0"], f"{name}/0", plane)
    return _plain(_pyramid([array for _, array in sorted(node.arrays())], name, plane), name, plane)


def _described(group: zarr.Group, described: Multiscale, name: str, plane: Plane | None) -> ZarrImage:
    try:
        levels = [cast("Array", group[path]) for path in described.paths]
    except KeyError as error:
        raise UnsupportedImageError(f"{name} refers to the array {error}, which does not exist") from None
    shape = levels[0].shape
    axes = ImageAxes.named(described.axes, shape, name, plane)
    kept = _smaller(levels, axes)
    size = axes.size(shape)
    extents = [_covered(size, axes.size(levels[i].shape), described.downsamples[i]) for i in kept]
    channels = channel_names(group.attrs, axes.bands(shape))
    return ZarrImage("OME-Zarr", [levels[i] for i in kept], axes, extents, described.resolution, channels)


def _smaller(levels: list[Array], axes: ImageAxes) -> list[int]:
    """The levels of which each is smaller than the one before."""
    kept = [0]
    for i, level in enumerate(levels):
        finer, own = axes.size(levels[kept[-1]].shape), axes.size(level.shape)
        if own.height <= finer.height and own.width <= finer.width and own != finer:
            kept.append(i)
    return kept


def _covered(size: Size, level: Size, downsample: tuple[float, float] | None) -> Size:
    """Level-0 pixels that a level covers: by its downsample where that fits the sizes, else the image."""
    if downsample is None:
        return size
    covered = level.scaled(*downsample)
    apart = abs(covered.height - size.height) < downsample[0], abs(covered.width - size.width) < downsample[1]
    return covered if all(apart) else size


def _plain(levels: list[Array], name: str, plane: Plane | None) -> ZarrImage:
    """Arrays without NGFF: each as its names of axes say, if it has any."""
    finest = levels[0]
    axes = ImageAxes.named(_names(finest), finest.shape, name, plane)
    return ZarrImage("Zarr", levels, axes, [axes.size(finest.shape)] * len(levels), None)


def _names(array: Array) -> list[str] | None:
    """Names of axes, of Zarr v3 or as xarray has them in v2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    known = [str(name).lower() for name in names] if isinstance(names, list | tuple) else []
    return known if {"x", "y"} <= set(known) else None


def _pyramid(arrays: list[Array], name: str, plane: Plane | None) -> list[Array]:
    """The arrays of a group as the levels of one image, finest first.

    Raises:
        UnsupportedImageError: when there is none, or they do not show the same.
    """
    images = sorted((array for array in arrays if array.ndim > 1), key=lambda array: -array.size)
    if not images:
        raise UnsupportedImageError(f"the group {name} has no image array")
    axes = _plain(images[:1], name, plane).axes
    sizes = [axes.size(array.shape) for array in images if array.ndim == len(axes.places)]
    same = len(sizes) == len(images) and all(map(sizes[0].reduces_to, sizes[1:]))
    if not same or len(set(sizes)) < len(sizes):
        names = ", ".join(array.basename for array in images)
        raise UnsupportedImageError(
            f"the arrays of {name} do not form a pyramid: {names}; open one of them: {name}/{images[0].basename}"
        )
    return images
