"""What a data set is: where its files are, its classes, how pixels become numbers, and its splits."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from foveate.config_base import Section
from foveate.data import sections
from foveate.errors import DatasetError
from foveate.geometry import IGNORE
from foveate.membership import MOST_OVERLAPPING, Exclusive, Membership, Overlapping
from foveate.texts import metres
from foveate.types import Tissue

_IMAGENET_MEAN = [0.485, 0.456, 0.406]
_IMAGENET_STD = [0.229, 0.224, 0.225]


def _expanded(path: Path) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


ExpandedPath = Annotated[Path, AfterValidator(_expanded)]


def _checked_length(text: str) -> str:
    metres(text)
    return text


def _mask_value(value: Any) -> Any:
    """A number, or a colour as "#rrggbb"."""
    text = str(value).lower()
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+|#[0-9a-f]{6}", text):
        raise ValueError("a value of a mask is a whole number, or a colour such as '#ff0000'")
    return text if text.startswith("#") else int(text)


LabelMap: TypeAlias = Annotated[
    Annotated[Literal["colors", "ids"], Tag("word")]
    | Annotated[dict[Annotated[int | str, BeforeValidator(_mask_value)], int], Tag("values")],
    Discriminator(lambda given: "word" if isinstance(given, str) else "values"),
]


def default_root() -> Path:
    """The folder in the environment variable FOVEATE_DATA, else `./data`."""
    return Path(os.environ.get("FOVEATE_DATA") or "data")


class DataConfig(Section):
    """A data set and how training reads it.

    Attributes:
        root: folder that other paths are relative to. The default is the environment variable FOVEATE_DATA, or
            `./data`.
        folder: folder with `images/` and `masks/`, paired by file stem.
        manifest: a table of files instead of `folder`: CSV or JSON lines with image, mask and optionally split; or one
            table per split, as {train: ..., val: ...}.
        pixel_size: a length such as "0.5 um". Every image and mask is read as if its pixels had this size. By default
            images are read as they are.
        assumed_pixel_size: the pixel size of images that do not state one. Only used with `pixel_size`.
        classes: at least two. The id of a class is its position. In a plain list of names, colours are chosen for you.
        overlapping: a pixel may belong to several classes, or to none: each class is a yes or no of its own. Masks have
            one band per class, or there is one file per class: `masks/CLASS/a.png` in a `folder`, `masks/{class}/a.png`
            in a manifest. Polygons may overlap. Pixels without a label belong to no class.
        label_map: maps values in the mask files to class ids or 255 (not counted); of overlapping classes to 0 (no), 1
            (yes) or 255, where by default 0 is no, and 1 or 255 is yes. A class that no value maps to keeps its own id
            as its value. Other values are errors. Masks that are pictures in colours have colours for values:
            {"#ff0000": 1, "#ffffff": 255}. "colors" takes the colours of `classes`, and "ids" the class ids of masks
            with a colour table.
        vectors: how polygons become labels, see `data.vectors`.
        round_labels: replace a value or colour that is not allowed by the nearest one that is, as JPEG masks need.
        allow_absent_classes: train even if a class has no labelled pixel in the training images.
        nodata: pixels that an image marks as having no data (nodata value, mask or alpha band), and pixels of float
            images that are not finite, are left out: their labels do not count, and no class is predicted for them. A
            number is one more such value, which the files do not declare. "ignore" leaves nothing out.
        tissue: draw training locations only on tissue: "auto" (on slides), true (on every image) or false (anywhere).
        plane: which plane to read if images have several along z or t, counted from 1: a number, or {z: 3, t: 1}.
            "bands" reads unnamed pages as bands.
        band_files: names of bands that lie in files of their own, in order, such as [B04, B03, B02]. An image is then
            a path with {band}, such as `T32_{band}.jp2`, or any one of its files. Coarser files are read on the finest
            grid.
        bands: numbers of the bands to use, counted from 1, in order. The default is all but alpha. A band that is
            listed here is image data, even if the file calls it alpha.
        in_channels: number of input channels of the network. A single band is repeated if this is 3.
        scale: divisor of the raw pixel values. The default is the range of their type (255, 65535; 1 for floats).
        mean, std: for each channel, mean and standard deviation of the divided values. The default is ImageNet's for 3
            channels, else 0.5 and 0.25.
        split: which images are for training, validation and test, see `data.split`. A split column in the manifest
            takes precedence.
        trained_on: properties of the training images, compared with each image at prediction. Training writes this.
        mismatch: what to do at prediction and evaluation with an image that differs from `trained_on`: "refuse" it;
            "scale" its values to the range of training; or "allow" it as it is.
        balance: share of locations that are drawn by class instead of by area, from 0 to 1.
        class_sampling: weights of classes, by name, for locations that are drawn by class. The default weight is 1.
        augmentation: random changes of the training data, see `data.augmentation`.
        workers: number of reading processes. 0 reads in the training process. The default is half the cores, 1 to 4;
            beside a GPU it is all cores but two, 1 to 16.
    """

    root: ExpandedPath = Field(default_factory=default_root)
    folder: ExpandedPath | None = None
    manifest: ExpandedPath | dict[Literal["train", "val", "test"], ExpandedPath] | None = None
    pixel_size: Annotated[str, AfterValidator(_checked_length)] | None = None
    assumed_pixel_size: Annotated[str, AfterValidator(_checked_length)] | None = None
    classes: list[sections.ClassConfig] = Field(min_length=2, max_length=255)
    overlapping: bool = False
    label_map: LabelMap | None = None
    vectors: sections.VectorsConfig = sections.VectorsConfig()
    round_labels: bool = False
    allow_absent_classes: bool = False
    nodata: Literal["ignore"] | Annotated[float, Field(allow_inf_nan=False)] | None = None
    tissue: Tissue = False
    plane: Literal["bands"] | Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]] | None = None
    band_files: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    bands: list[int] | None = Field(default=None, min_length=1)
    in_channels: int = Field(default=3, ge=1)
    scale: float | None = Field(default=None, gt=0)
    mean: list[float] | None = None
    std: list[float] | None = None
    split: sections.SplitConfig = sections.SplitConfig()
    trained_on: sections.TrainedOn | None = None
    mismatch: Literal["refuse", "scale", "allow"] = "refuse"
    balance: float = Field(default=0.5, ge=0, le=1)
    class_sampling: dict[sections.Name, float] | None = None
    augmentation: sections.AugmentationConfig = sections.AugmentationConfig()
    workers: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_use_nodata(cls, values: Any) -> Any:
        """Earlier versions had `use_nodata: false` for "ignore", and took a number beside it out of averages alone."""
        if not isinstance(values, dict) or not isinstance(values.get("use_nodata"), bool):
            return values
        rest, number = {key: value for key, value in values.items() if key != "use_nodata"}, values.get("nodata")
        if not values["use_nodata"] and number not in (None, "ignore"):
            raise ValueError(
                f"use_nodata: false and nodata: {number} are one setting now: nodata: {number} leaves such pixels out "
                "and those that images mark, nodata: ignore takes all for values; keep one and remove use_nodata"
            )
        return rest if values["use_nodata"] else {**rest, "nodata": "ignore"}

    @model_validator(mode="before")
    @classmethod
    def _read_colors(cls, values: Any) -> Any:
        """Earlier versions had `colors` for masks that are pictures in colours."""
        if not isinstance(values, dict) or "colors" not in values:
            return values
        rest, colors = {key: value for key, value in values.items() if key != "colors"}, values["colors"]
        if colors is None or (colors is False and rest.get("label_map") is not None):
            return rest
        if rest.get("label_map") is not None:
            raise ValueError("colors and label_map are one setting now, label_map; remove one of them")
        return {**rest, "label_map": {True: "colors", False: "ids"}[colors] if isinstance(colors, bool) else colors}

    @field_validator("classes", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """A plain list of names gets colours."""
        plain = isinstance(value, list | tuple) and value and all(isinstance(one, str) and one for one in value)
        return sections.default_classes(value) if plain else value

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.folder is None) == (self.manifest is None):
            raise ValueError("set exactly one of 'folder' and 'manifest'")
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        names = self.class_names
        if len(set(names)) < len(names):
            raise ValueError(f"class names must be unique, got {names}")
        allowed = {*range(2 if self.overlapping else len(names)), IGNORE}
        mapped = self.label_map if isinstance(self.label_map, dict) else {}
        wrong = sorted(set(mapped.values()) - allowed)
        if wrong:
            raise ValueError(f"label_map maps to {wrong}; allowed are {sorted(allowed)}")
        if len({isinstance(value, str) for value in mapped}) > 1:
            raise ValueError("label_map is for masks of numbers or for masks of colours; give one kind of values")
        if self.label_map == "colors" and len(self.mask_colours or {}) < len(names):
            raise ValueError("label_map: colors needs a different colour for each class")
        return self

    @model_validator(mode="after")
    def _check_overlapping(self) -> Self:
        if self.overlapping and len(self.classes) > MOST_OVERLAPPING:
            raise ValueError(f"at most {MOST_OVERLAPPING} classes may overlap, got {len(self.classes)}")
        if self.overlapping and self.mask_colours:
            raise ValueError(
                "masks in colours hold one class per pixel: label_map: colors and overlapping exclude each other"
            )
        return self

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        named = [*(self.vectors.classes or {}).values(), self.vectors.unlabelled]
        wrong = sorted({name for name in named if name is not None} - {*self.class_names, "ignore"})
        if wrong:
            raise ValueError(f"data.vectors names {wrong}; allowed are {', '.join(self.class_names)} and ignore")
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        weights = self.class_sampling or {}
        unknown = sorted(set(weights) - set(self.class_names))
        if unknown:
            raise ValueError(f"class_sampling names {unknown}; the classes are {self.class_names}")
        if any(weight < 0 for weight in weights.values()):
            raise ValueError(f"class_sampling weights must not be negative, got {weights}")
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if self.bands is not None and min(self.bands) < 1:
            raise ValueError(f"bands are counted from 1, got {self.bands}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.in_channels:
                raise ValueError(f"{name} needs {self.in_channels} values (in_channels), got {len(values)}")
        if min(self.channel_std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if self.in_channels != 3 and self.augmentation.color_jitter[2:]:
            raise ValueError("saturation and hue need in_channels 3; give color_jitter two numbers")
        return self

    def check_there(self) -> None:
        """Refuse a data set of which nothing is there, before what reads it is loaded.

        Raises:
            DatasetError: naming the folder or list that is missing.
        """
        if self.folder is not None:
            folder = self.root / self.folder
            for needed in (folder, folder / "images"):
                if not needed.is_dir():
                    raise DatasetError(
                        f"no folder {needed}; a data set folder holds images/ and masks/, paired by file stem. If it "
                        "was moved, say where it is now: data.folder=FOLDER"
                    )
        lists = self.manifest.values() if isinstance(self.manifest, dict) else [self.manifest] if self.manifest else []
        for path in lists:
            if not (self.root / path).is_file():
                raise DatasetError(f"no manifest at {self.root / path}; set data.manifest, data.root or FOVEATE_DATA")

    @property
    def use_nodata(self) -> bool:
        """Whether what an image marks as having no data is left out."""
        return self.nodata != "ignore"

    @property
    def working_pixel(self) -> float | None:
        """`pixel_size` in metres."""
        return None if self.pixel_size is None else metres(self.pixel_size)

    @property
    def assumed_pixel(self) -> float | None:
        """`assumed_pixel_size` in metres."""
        return None if self.assumed_pixel_size is None else metres(self.assumed_pixel_size)

    @property
    def mask_colours(self) -> dict[tuple[int, int, int], int] | None:
        """Class id or 255 by the colour in masks, None where these hold numbers."""
        if self.label_map == "colors":
            return {item.rgb: label for label, item in enumerate(self.classes)}
        mapped = self.label_map if isinstance(self.label_map, dict) else {}
        return {sections.rgb_of(value): label for value, label in mapped.items() if isinstance(value, str)} or None

    @property
    def mask_values(self) -> dict[int, int] | None:
        """Class id or 255 by the number in masks, None where these hold class ids or colours."""
        mapped = self.label_map if isinstance(self.label_map, dict) else {}
        return {value: label for value, label in mapped.items() if isinstance(value, int)} or None

    @property
    def membership(self) -> Membership:
        """How classes are read off scores and labels."""
        return Overlapping() if self.overlapping else Exclusive()

    @property
    def class_names(self) -> list[str]:
        """Names in the order of ids."""
        return [item.name for item in self.classes]

    @property
    def channel_mean(self) -> list[float]:
        """The mean in use, per channel."""
        default = _IMAGENET_MEAN if self.in_channels == 3 else [0.5] * self.in_channels
        return self.mean or default

    @property
    def channel_std(self) -> list[float]:
        """The standard deviation in use, per channel."""
        default = _IMAGENET_STD if self.in_channels == 3 else [0.25] * self.in_channels
        return self.std or default
