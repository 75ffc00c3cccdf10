"""The paper's data sets as they are unpacked from the official packages: DeepGlobe, Cityscapes and Gleason2019."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from foveate.data import SPLITS, Split, SplitConfig, open_image
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import IGNORE, LabelArray
from foveate.paper.preparation.scenes import Colour, Mask, Recipe, Scene, mask_by_colour, mask_by_value

_COLOURS: dict[str, Colour] = {
    "urban": (0, 255, 255),
    "agriculture": (255, 255, 0),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
}
_UNKNOWN: Colour = (0, 0, 0)
_COLOUR_IDS = {colour: index for index, colour in enumerate(_COLOURS.values())} | {_UNKNOWN: IGNORE}
# The sizes of the field's split, 455 / 207 / 142, for those who do not have its lists.
_SIZES = {"train": 455, "val": 207, "test": 142}
_SHARES = {name: _SIZES[name] / sum(_SIZES.values()) for name in ("val", "test")}
# Official label ids of the 19 classes that are evaluated; the other ids up to 33 are void or too rare.
_LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_VALUE_IDS = dict.fromkeys(range(34), IGNORE) | {value: index for index, value in enumerate(_LABEL_IDS.values())}
Fusion: TypeAlias = Literal["majority", "staple"]
# It settles within ten or so where experts mostly agree; where they do not at all it would go on for minutes.
_STAPLE_ITERATIONS = 50
Scheme: TypeAlias = Literal["4", "3", "3-vs-rest", "4-vs-rest", "5-vs-rest", "benign-vs-rest"]
_GRADES = ("benign", "grade 3", "grade 4", "grade 5")
# Value in a map -> place in `_GRADES`: 0 is background, 6 is taken for benign as in the original.
_VALUES = {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 0}
# Class names, and the class of each grade, as in the original.
_SCHEMES: dict[Scheme, tuple[tuple[str, ...], tuple[int, int, int, int]]] = {
    "4": (_GRADES, (0, 1, 2, 3)),
    "3": (_GRADES[:3], (0, 1, 2, 0)),
    "3-vs-rest": (("rest", "grade 3"), (0, 1, 0, 0)),
    "4-vs-rest": (("rest", "grade 4"), (0, 0, 1, 0)),
    "5-vs-rest": (("rest", "grade 5"), (0, 0, 0, 1)),
    "benign-vs-rest": (("benign", "cancer"), (0, 1, 1, 1)),
}
_MAPS = re.compile(r"Maps\d+", re.IGNORECASE)
_OTHER_SIZE = "a map of another size than its image, left out"
_UNDECIDED = "experts disagree evenly, ignored"


class DeepGlobe(Recipe):
    """6 classes; unknown, and what is off the palette, is ignored.

    The official validation and test images have no public labels: the field splits the 803 training images.

    Source: Demir et al., "DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images", CVPRW 2018; the
        split is that of Chen et al., "Collaborative Global-Local Networks" (GLNet), CVPR 2019.
    """

    name = "deepglobe"
    classes = tuple(_COLOURS)
    pattern = re.compile(r"^(\d+)(?:_(?:sat|mask|label))?(?:\.\w+)?\Z")  # the number of the image
    draw = SplitConfig.model_validate(_SHARES)

    def scenes(self, source: Path) -> Iterator[Scene]:
        """Every `*_sat.jpg` below the folder.

        Raises:
            DatasetError: when there is none.
        """
        images = {path: key for path in sorted(source.rglob("*_sat.jpg")) if (key := self.key(path.name))}
        if not images:
            raise DatasetError(f"no *_sat.jpg below {source}; unpack the land cover track of DeepGlobe there")
        for image, key in images.items():
            labels = image.with_name(image.name.replace("_sat.jpg", "_mask.png"))
            found = labels.is_file()
            yield Scene(key, image, (labels,)) if found else Scene(key, image, left_out="no *_mask.png beside it")

    def mask(self, scene: Scene) -> Mask:
        """Class ids of the colours of a `*_mask.png`."""
        return mask_by_colour(scene.labels[0], _COLOUR_IDS)


class Cityscapes(Recipe):
    """19 classes by the official train ids; the rest is ignored.

    The splits are the official ones. Labels of the test split are not public: it is left out.

    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
    """

    name = "cityscapes"
    classes = tuple(_LABEL_IDS)
    pattern = re.compile(r"([a-z-]+_\d{6}_\d{6})")  # city, sequence and frame, such as "aachen_000000_000019"

    def scenes(self, source: Path) -> Iterator[Scene]:
        """The images of `leftImg8bit/train`, `val` and `test`.

        Raises:
            DatasetError: when there is no `leftImg8bit` or `gtFine`.
        """
        for folder in ("leftImg8bit", "gtFine"):
            if not (source / folder).is_dir():
                raise DatasetError(
                    f"no folder {source / folder}; unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip "
                    f"into {source}"
                )
        for split in SPLITS:
            for image in sorted((source / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
                yield self._scene(source, image, split)

    def _scene(self, source: Path, image: Path, split: Split) -> Scene:
        prefix = image.name.removesuffix("_leftImg8bit.png")
        labels = source / "gtFine" / split / image.parent.name / f"{prefix}_gtFine_labelIds.png"
        key = self.key(image.name) or image.stem
        if split == "test":
            return Scene(key, image, left_out="the labels of the test split are not public")
        if not labels.is_file():
            return Scene(key, image, left_out="no *_gtFine_labelIds.png")
        return Scene(key, image, (labels,), split)

    def mask(self, scene: Scene) -> Mask:
        """Train ids of a `*_labelIds.png`."""
        return mask_by_value(scene.labels[0], _VALUE_IDS)


@dataclass(frozen=True)
class Gleason2019(Recipe):
    """Grades of prostate tissue, fused from the experts' maps.

    The maps are fused as four grades, then mapped: every scheme is a function of the four-class masks.

    Attributes:
        fusion: "majority" or "staple".
        scheme: "4" for benign and grades 3, 4 and 5; "3" without grade 5, which then counts as benign; "3-vs-rest",
            "4-vs-rest", "5-vs-rest" and "benign-vs-rest" for two classes.
        crop: side of the central square that is kept, pixels; the original keeps 4400. Smaller images stay whole.

    Raises:
        ConfigError: when the crop is not above zero, or STAPLE is asked for and its package is missing.

    Source: Nir et al., "Automatic grading of prostate cancer in digitized histopathology images", MedIA 2018; schemes
        and the share of validation images as in the public code of arXiv 2007.15124.
    """

    fusion: Fusion = "majority"
    scheme: Scheme = "4"
    crop: int | None = None

    name: ClassVar[str] = "gleason2019"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"(slide\d+_core\d+)")  # such as "slide001_core003"
    draw: ClassVar[SplitConfig] = SplitConfig(val=30 / 268)

    def __post_init__(self) -> None:
        if self.fusion == "staple" and find_spec("SimpleITK") is None:  # before hours of work
            raise ConfigError("fusion 'staple' needs SimpleITK: pip install 'foveate[prepare]', or use 'majority'")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"--crop {self.crop}; give the side of the central square in pixels, such as 4400")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id, as the scheme says."""
        return _SCHEMES[self.scheme][0]

    def scenes(self, source: Path) -> Iterator[Scene]:
        """Every `slideNNN_coreNNN.jpg` below the folder.

        Raises:
            DatasetError: when there is no image, or no folder of maps.
        """
        maps = self._maps(source)
        images = sorted(path for path in source.rglob("slide*_core*.jpg") if self.pattern.fullmatch(path.stem))
        if not images or not maps:
            raise DatasetError(
                f"{source} holds {len(images)} images slideNNN_coreNNN.jpg and maps of {len(maps)} of them; unpack the "
                f"training images and Maps1_T.zip to Maps6_T.zip there"
            )
        for image in images:
            found = tuple(maps.get(image.stem, ()))
            yield Scene(image.stem, image, found) if found else Scene(image.stem, image, left_out="no expert map")

    def _maps(self, source: Path) -> dict[str, list[Path]]:
        """Maps by core; only below folders called Maps..., as results of others may lie beside them."""
        found = defaultdict(list)
        for path in sorted(source.rglob("slide*_classimg_nonconvex.png")):
            key = self.key(path.name)
            if key and any(_MAPS.match(part) for part in path.relative_to(source).parts[:-1]):
                found[key].append(path)
        return dict(found)

    def mask(self, scene: Scene) -> Mask:
        """The experts' maps as one mask."""
        with open_image(scene.image) as image:
            shape = (image.size.height, image.size.width)
        maps = [mask_by_value(path, _VALUES) for path in scene.labels]
        fitting = [each for each in maps if each.ids.shape == shape]
        if not fitting:
            raise DatasetError(f"none of the {len(maps)} maps of {scene.image} has its {shape[0]} x {shape[1]} pixels")
        fused = fuse([each.ids for each in fitting], len(_GRADES), self.fusion)
        table = np.full(256, IGNORE, np.uint8)
        table[: len(_GRADES)] = _SCHEMES[self.scheme][1]
        return Mask(table[fused], _odd(maps, fitting, fused))


def _odd(maps: list[Mask], fitting: list[Mask], fused: LabelArray) -> Counter[str]:
    odd = Counter({f"maps of {len(fitting)} experts": 0})
    for each in fitting:
        odd.update(each.odd)
    if len(fitting) < len(maps):
        odd[_OTHER_SIZE] = 0
    labelled = np.any([each.ids != IGNORE for each in fitting], axis=0)
    undecided = int(np.count_nonzero(labelled & (fused == IGNORE)))
    if undecided:
        odd[_UNDECIDED] = undecided
    return odd


def fuse(maps: Sequence[LabelArray], classes: int, fusion: Fusion) -> LabelArray:
    """One (H, W) mask from at least one; one alone is returned as it is.

    Args:
        maps: masks of equal size, class ids and `IGNORE`, which is no vote.
        classes: number of classes.
        fusion: "majority" or "staple".
    """
    if len(maps) == 1:
        return maps[0]
    return majority(maps, classes) if fusion == "majority" else staple(maps, classes)


def majority(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The class most experts chose; a tie is ignored, as a rule that breaks it would be an opinion of its own.

    Args:
        maps: (H, W) each, class ids and `IGNORE`, which is no vote.
        classes: number of classes.
    """
    result = np.full_like(maps[0], IGNORE)
    most = np.zeros(result.shape, np.uint8)
    for label in range(classes):
        votes = np.zeros_like(most)
        for each in maps:
            votes += each == label
        result[(votes == most) & (votes > 0)] = IGNORE
        result[votes > most] = label
        np.maximum(most, votes, out=most)
    return result


def staple(maps: Sequence[LabelArray], classes: int) -> LabelArray:
    """The likeliest class given how reliable each expert is, both estimated together; a tie is ignored.

    Args:
        maps: (H, W) each, class ids and `IGNORE`, which counts as one more class.
        classes: number of classes.

    Source: Rohlfing, Russakoff, Maurer, "Performance-based classifier combination in atlas-based image segmentation
        using expectation-maximization parameter estimation", IEEE TMI 2004; the implementation is ITK's.
    """
    import SimpleITK as sitk  # noqa: N813, PLC0415 - optional, and its usual name

    # ITK keeps a weight for every value up to the largest: 255 would make 256 of them.
    images = [sitk.GetImageFromArray(np.where(each == IGNORE, classes, each).astype(np.uint8)) for each in maps]
    fusing = sitk.MultiLabelSTAPLEImageFilter()
    fusing.SetMaximumNumberOfIterations(_STAPLE_ITERATIONS)
    fusing.SetLabelForUndecidedPixels(classes)
    fused: LabelArray = sitk.GetArrayFromImage(fusing.Execute(images))
    return np.where(fused >= classes, IGNORE, fused).astype(np.uint8)
