"""Which arrays of a Zarr group make an image, and how they lie over each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from foveate.data.readers.axes import ImageAxes
from foveate.data.readers.base import Resolution
from foveate.data.readers.ngff import Multiscale, attributes_of, channel_names, multiscale_of
from foveate.data.readers.options import Plane
from foveate.errors import UnsupportedImageError
from foveate.geometry import Size

if TYPE_CHECKING:
    import zarr

    Array: TypeAlias = zarr.Array[Any]
    Node: TypeAlias = Array | zarr.Group


@dataclass(frozen=True, slots=True)
class ZarrImage:
    """The arrays of one image.

    Attributes:
        format: "OME-Zarr" or "Zarr".
        levels: its pyramid, finest first.
        axes: which axis of each is which.
        extents: level-0 pixels that each level covers.
        resolution: size of a pixel of level 0, where known.
        names: of the bands, where known.
    """

    format: str
    levels: list[Array]
    axes: ImageAxes
    extents: list[Size]
    resolution: Resolution | None
    names: tuple[str, ...] = ()


def image_in(node: Node, name: str, plane: Plane | None = None) -> ZarrImage:
    """The image that an array or group holds.

    Args:
        node: the array, the image's group, a group of arrays, or one that `bioformats2raw` wrote around an image.
        name: of it, for errors.
        plane: which plane of several is wanted.

    Raises:
        UnsupportedImageError: when it is no image.
        SeveralPlanesError: naming an axis of several planes of which none was chosen.
    """
    import zarr  # noqa: PLC0415 - an extra

    if isinstance(node, zarr.Array):
        return _plain([node], name, plane)
    described = multiscale_of(node.attrs, name)
    if described is not None:
        return _multiscale(node, described, name, plane)
    if "bioformats2raw.layout" in attributes_of(node.attrs) and "0" in node:
        return image_in(node["0"], f"{name}/0", plane)
    return _plain(_pyramid([array for _, array in sorted(node.arrays())], name, plane), name, plane)


def _multiscale(group: zarr.Group, described: Multiscale, name: str, plane: Plane | None) -> ZarrImage:
    try:
        levels = [cast("Array", group[path]) for path in described.paths]
    except KeyError as error:
        raise UnsupportedImageError(f"{name} names the array {error}, which is not there") from None
    shape = levels[0].shape
    names = described.axes
    axes = ImageAxes.guessed(shape, name) if names is None else ImageAxes.named(names, shape, name, plane)
    kept = _smaller(levels, axes)
    size = axes.size(shape)
    extents = [_covered(size, axes.size(levels[i].shape), described.downsample(i)) for i in kept]
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
    covered = Size(max(1, round(level.height * downsample[0])), max(1, round(level.width * downsample[1])))
    apart = abs(covered.height - size.height) < downsample[0], abs(covered.width - size.width) < downsample[1]
    return covered if all(apart) else size


def _plain(levels: list[Array], name: str, plane: Plane | None) -> ZarrImage:
    """Arrays without NGFF: each as its names of axes say, if it has any."""
    finest = levels[0]
    names = _names(finest)
    axes = ImageAxes.guessed(finest.shape, name) if names is None else ImageAxes.named(names, finest.shape, name, plane)
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
        raise UnsupportedImageError(f"the group {name} has no array of an image")
    axes = _plain(images[:1], name, plane).axes
    sizes = [axes.size(array.shape) for array in images if array.ndim == axes.count]
    same = len(sizes) == len(images) and all(_is_level(sizes[0], size) for size in sizes[1:])
    if not same or len(set(sizes)) < len(sizes):
        names = ", ".join(array.basename for array in images)
        raise UnsupportedImageError(
            f"the arrays of {name} are no pyramid: {names}; open one of them: {name}/{images[0].basename}"
        )
    return images


def _is_level(finest: Size, size: Size) -> bool:
    """Whether the factors of the sides are equal but for the rounding to whole pixels."""
    down, across = finest.height / size.height, finest.width / size.width
    return abs(down - across) <= 1.01 * max(down / size.height, across / size.width)
