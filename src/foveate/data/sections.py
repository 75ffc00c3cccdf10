"""Sections of the description of a data set: classes and their colours, polygons, splits, augmentation."""

import hashlib
from collections.abc import Iterable, Sequence
from colorsys import hsv_to_rgb
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from foveate.config_base import Section
from foveate.errors import DatasetError
from foveate.geometry import Coordinates

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SHOWN = 5


def _as_hex(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower()
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("a colour is '#rrggbb' or three numbers from 0 to 255")
    if not all(isinstance(part, int) and 0 <= part <= 255 for part in value):
        raise ValueError("a colour's three numbers must be integers from 0 to 255")
    return "#{:02x}{:02x}{:02x}".format(*value)


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of "#rrggbb"."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Of an image or a class; YAML makes a number of one such as 10.
Name = Annotated[str, BeforeValidator(_text)]
Color = Annotated[str, BeforeValidator(_as_hex), Field(pattern=r"^#[0-9a-f]{6}$")]


class ClassConfig(Section):
    """One class. Its id is its position in the list, counted from 0.

    Attributes:
        name: unique name, used in tables and in `class_sampling`.
        color: "#rrggbb", or [r, g, b] with values from 0 to 255.
    """

    name: Name = Field(min_length=1)
    color: Color

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        return rgb_of(self.color)


# Told apart on maps and photographs, in this order; more are spread over the colour circle.
_COLOURS = (
    "#d62728", "#1f77b4", "#2ca02c", "#ff9f1c", "#9467bd", "#17becf", "#e377c2", "#8c564b", "#bcbd22", "#f4e04d",
)  # fmt: skip

_GOLDEN = 0.618034


def default_classes(names: Sequence[str]) -> list[ClassConfig]:
    """Classes of these names with colours that are told apart; a background that comes first is black."""
    dark = bool(names) and names[0].casefold() in ("background", "ground", "other", "void")
    colours = ["#000000"] if dark else []
    colours += [*_COLOURS, *(_hue(k * _GOLDEN % 1) for k in range(256))]
    return [ClassConfig(name=name, color=color) for name, color in zip(names, colours, strict=False)]


def _hue(turn: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in hsv_to_rgb(turn, 0.65, 0.9))


class VectorsConfig(Section):
    """Labels from polygons: GeoJSON (also QuPath's), GeoPackage, shapefile, COCO and LabelMe files.

    Attributes:
        attribute: property or column that holds the class. By default Foveate looks for the usual names (QuPath's
            `classification`, `class`, `label`, `category`, ...).
        classes: maps values in the file to class names or "ignore": `{Tumour: tumour, Artefact: ignore}`. Values that
            are class names (in any case) or class ids need no entry.
        unlabelled: class of the pixels outside all polygons, or "ignore". The default is the first class.
        order: which polygon is on top where several overlap: "file" (the later one), "classes" (the one with the higher
            class id) or "smallest".
        coordinates: "pixels" of the stored image; "crs" (the system of the file, or of the image if the file names
            none); "lonlat"; or "auto".
        layer: layer to read, if a GeoPackage has several.
    """

    attribute: str | None = None
    classes: dict[Name, Name] | None = None
    unlabelled: Name | None = None
    order: Literal["file", "classes", "smallest"] = "file"
    coordinates: Coordinates = "auto"
    layer: str | None = None


Share = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(Section):
    """Split of the images: by name or by a random draw. Each image is in exactly one split.

    Of the images named in no list the shares are drawn, the rest is for training. A share is a count: rounded, at least
    one image, and one is left to train on. Where a `train` list is given nothing is drawn, and every image must be in a
    list.

    Attributes:
        train: stems of image files.
        val, test: stems of image files, or a share of the images to draw, in [0, 1). An empty `val` turns validation
            off.
        seed: changes the draw. The draw depends only on the seed and the stems.
    """

    train: list[Name] | None = None
    val: list[Name] | Share | None = None
    test: list[Name] | Share | None = None
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _read_fractions(cls, values: Any) -> Any:
        """Earlier versions had `val_fraction` and `test_fraction` beside the lists."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for split in ("val", "test"):
            share = values.pop(f"{split}_fraction", None)
            if share and values.get(split) is not None:
                raise ValueError(f"{split} and {split}_fraction are one setting; give a list or a share")
            values |= {split: share} if share else {}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.share("val") + self.share("test") >= 1:
            raise ValueError("the shares val and test must be below 1 together; otherwise no image is left to train on")
        if self.train is not None and (self.share("val") or self.share("test")):
            raise ValueError("shares cannot be used with a train list; remove the list or the shares")
        return self

    def share(self, split: Literal["val", "test"]) -> float:
        """Of the images to draw; 0 where they are listed."""
        given = getattr(self, split)
        return given if isinstance(given, float) else 0.0


class AugmentationConfig(Section):
    """Random changes of a training location. Overview, patches and labels change in the same way.

    Attributes:
        orientations: "d4" rotates by multiples of 90 degrees and mirrors; "flips" mirrors vertically and horizontally;
            "horizontal" only swaps left and right, for scenes that are never upside down; "none" changes nothing.
        color_jitter: how much brightness, contrast, saturation and hue change, such as [0.2, 0.2, 0.1]; what is not
            given stays. Of the first three a factor is drawn from [1 - v, 1 + v], of the hue a shift from [-v, v], in
            turns of the colour circle, at most 0.5. Without saturation and hue each channel changes by itself.
    """

    orientations: Literal["d4", "flips", "horizontal", "none"] = "d4"
    color_jitter: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(), max_length=4)

    @field_validator("color_jitter")
    @classmethod
    def _check_hue(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(hue > 0.5 for hue in values[3:]):
            raise ValueError("a shift of the hue, the fourth number, is at most 0.5")
        while values and not values[-1]:
            values = values[:-1]
        return values

    @model_validator(mode="before")
    @classmethod
    def _read_switches(cls, values: Any) -> Any:
        """Earlier versions had a switch for turning and for mirroring, and a key for each number of `color_jitter`."""
        earlier = set(values) & {*_SWITCHES, *_JITTER} if isinstance(values, dict) else set()
        if not earlier:
            return values
        rest = {key: value for key, value in values.items() if key not in earlier}
        how = tuple(values.get(key, True) for key in _SWITCHES)
        name = next((name for name, switches in _ORIENTATIONS.items() if switches == how), None)
        if name is None or rest.get("color_jitter") or "orientations" in rest:
            raise ValueError(
                f"{', '.join(sorted(earlier))}: these are two settings now. Give orientations (d4, flips, horizontal "
                "or none) and color_jitter ([brightness, contrast, saturation, hue]) instead"
            )
        return {**rest, "orientations": name, "color_jitter": [values.get(key, 0) for key in _JITTER]}


_SWITCHES, _JITTER = ("flip", "rotate90"), ("brightness", "contrast", "saturation", "hue")
_ORIENTATIONS = {
    "d4": (True, True),
    "flips": (True, False),
    "horizontal": ("horizontal", False),
    "none": (False, False),
}


class TrainedOn(Section):
    """Properties of the training images. Training writes them; do not set them by hand.

    Attributes:
        dtype: type of the pixels.
        scale: divisor of the pixel values.
        bands: number of bands that were used.
        names: for each channel, the name of its band in the files; "" if they give none.
        scaling: for each channel, the gain and offset that the files give.
        low, high: for each channel, the lowest 0.5th and the highest 99.5th percentile over all images, if known.
        pixel_size: pixel sizes of the finest and the coarsest image in metres, if known.
    """

    dtype: str
    scale: float
    bands: int
    names: tuple[str, ...]
    scaling: tuple[tuple[float, float], ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    pixel_size: tuple[float, float] | None = None


def assign_splits(names: Iterable[str], config: SplitConfig) -> dict[str, Split]:
    """The split of each name; what no list names is drawn, and the order of the names changes nothing.

    Raises:
        DatasetError: when a list names an image that is not there, two lists name the same, or a `train` list was
            given and an image is in no list.
    """
    names = list(names)
    listed = _listed(config)
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise DatasetError(
            f"the split lists name images that do not exist: {some(unknown)}; the images are {some(names)}"
        )
    rest = sorted(set(names) - set(listed))
    if rest and config.train is not None:
        raise DatasetError(f"there is a train list, but these images are in no list: {some(rest)}; add or remove them")
    return listed | _drawn(rest, config)


def _listed(config: SplitConfig) -> dict[str, Split]:
    result: dict[str, Split] = {}
    for split in SPLITS:
        given = getattr(config, split)
        for name in given if isinstance(given, list) else ():
            if result.setdefault(name, split) != split:
                raise DatasetError(f"image {name!r} is listed in both {result[name]} and {split}; keep one")
    return result


def _drawn(names: Sequence[str], config: SplitConfig) -> dict[str, Split]:
    """The first by a hash, so that another image moves at most one to each side of a border between splits."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{config.seed}:{name}".encode()).digest())
    test, val = _counts(len(ranked), config)
    kinds: tuple[tuple[Split, int], ...] = (("test", test), ("val", val), ("train", len(ranked) - test - val))
    return dict(zip(ranked, (split for split, count in kinds for _ in range(count)), strict=True))


def _counts(images: int, config: SplitConfig) -> tuple[int, int]:
    """Images to test and to validate on: to the nearest whole number, one at least, and one is left to train on."""
    test, val = (max(1, round(share * images)) if share else 0 for share in (config.share("test"), config.share("val")))
    val = min(val, max(0, images - 1))
    return min(test, max(0, images - 1 - val)), val


def some(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text} and {len(names) - _SHOWN} more"
