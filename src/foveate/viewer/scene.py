"""A scene: its layers, each a raster on the ground of one base grid, and `TileService`, which makes their tiles."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from foveate.data.images import ReaderCache
from foveate.data.readers import Georeference, ImageReader, Resolution, open_image
from foveate.data.sections import ClassConfig, VectorsConfig
from foveate.files import Closing
from foveate.geometry import Size, Window, ceil_div
from foveate.viewer.rendering import Rendering, encoded

Kind: TypeAlias = Literal[
    "image", "labels", "classes", "errors", "probabilities", "confidence", "entropy", "fov", "loss", "iou", "windows",
    "polygons",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about the files beside their names."""

    # 1-based numbers of the bands shown as red, green and blue, or one for grey; the first three when None
    bands: tuple[int, ...] | None = None
    classes: Sequence[ClassConfig] | None = None  # names and colours; those of the class maps when None
    overlapping: bool | None = None  # whether a pixel may belong to several classes; as the class maps say when None
    # value in the labels -> class id, of overlapping classes -> 0 or 1; the values themselves when None
    label_map: dict[int, int] | None = None
    vectors: VectorsConfig = field(default_factory=VectorsConfig)  # how labels that are polygons are read
    tile: int = 256  # side of the tiles, 64 to 1024


class ClassEntry(NamedTuple):
    """A line of a legend."""

    code: int  # byte in the tiles
    name: str  # shown to people
    color: str  # "#rrggbb"; empty is not drawn
    share: float | None = None  # of the pixels, where a summary says so


class Scale(NamedTuple):
    """What the codes of a layer of values mean."""

    low: float  # values of the codes 1 and 255; 0 is unknown
    high: float
    unit: str  # shown after a value
    stops: tuple[str, ...]  # colours "#rrggbb" from low to high, evenly spaced


class Tone(NamedTuple):
    """How bright a picture is drawn at first."""

    low: float = 0  # values of the file that its tiles show as black and as white
    high: float = 255
    black: float = 0  # shares of that range that become black and white
    white: float = 1
    gamma: float = 1  # above 1 lifts what is dark


class Look(NamedTuple):
    """Passes of one way of looking: of a pixel of their layer, whose code has the bit, the used part begins at it."""

    code: int  # the bit; also that of its line in the legend
    view: float  # field of view, base pixels
    side: float  # of the central part that is used, base pixels


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster to show."""

    kind: Kind  # what it is; the same kind of two predictions is switched on and off together
    title: str  # shown to people
    rendering: Rendering  # makes its tiles
    size: Size  # of the raster
    pixel: float = 1  # side of one of its pixels, in pixels of the base grid
    prediction: int | None = None  # index of the prediction it belongs to; None is shown with all
    classes: Sequence[ClassEntry] = ()  # legend of ids; empty for others
    scale: Scale | None = None  # legend of values; None for others
    # which of several layers of one kind it is, of which one is shown at a time; empty where there is one
    option: str = ""
    sets: bool = False  # whether codes are sets: bit k is the class with code k. 255 is not counted.
    looks: Sequence[Look] = ()  # of a layer of windows, narrowest first; such a layer is outlined, not coloured
    tone: Tone | None = None  # of a picture
    border: int = 0  # added to the code of a polygon on its border; 0 for other layers
    shown: bool = False  # whether it is on at first
    opacity: float = 1  # at first


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a view shows."""

    title: str  # name of the image
    size: Size  # of the base grid: the image, or the class map where there is no image
    layers: tuple[Layer, ...]  # from the lowest to the topmost
    predictions: tuple[str, ...] = ()  # their names
    resolution: Resolution | None = None  # of a base pixel, or None
    georeference: Georeference | None = None  # of the base grid, or None
    notices: tuple[str, ...] = field(default=())  # what should be said to whoever opens it
    tile: int = 256  # side of the tiles


class TileIndex(NamedTuple):
    """Which tile: its level (0 is one pixel, the highest is the raster itself), column and row."""

    level: int
    col: int
    row: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a raster."""

    size: Size  # of the raster
    side: int = 256  # of a tile in pixels; the last of a row or column may be smaller

    @property
    def max_level(self) -> int:
        """The level at full resolution."""
        return (max(self.size.height, self.size.width) - 1).bit_length()

    def level_size(self, level: int) -> Size:
        """Size of a level, rounded up to whole pixels."""
        step = 1 << (self.max_level - level)
        return Size(ceil_div(self.size.height, step), ceil_div(self.size.width, step))

    def place(self, index: TileIndex) -> tuple[Window, Size]:
        """What a tile shows: its window in pixels of the raster, and its own size.

        The window may reach over the lower and right border by less than a pixel of the level, so that the pixels of
        all tiles of a level have one size.

        Raises:
            IndexError: when there is no such tile.
        """
        if not 0 <= index.level <= self.max_level or min(index.col, index.row) < 0:
            raise IndexError(index)
        size, step = self.level_size(index.level), 1 << (self.max_level - index.level)
        top, left = index.row * self.side, index.col * self.side
        if top >= size.height or left >= size.width:
            raise IndexError(index)
        shown = Size(min(self.side, size.height - top), min(self.side, size.width - left))
        return Window(top * step, left * step, shown.height * step, shown.width * step), shown

    def __iter__(self) -> Iterator[TileIndex]:
        for level in range(self.max_level + 1):
            size = self.level_size(level)
            for row in range(ceil_div(size.height, self.side)):
                for col in range(ceil_div(size.width, self.side)):
                    yield TileIndex(level, col, row)

    def __len__(self) -> int:
        sizes = map(self.level_size, range(self.max_level + 1))
        return sum(ceil_div(size.height, self.side) * ceil_div(size.width, self.side) for size in sizes)


MAX_OPEN = 16  # files a thread keeps open
_DECODED_BYTES = 2 << 30
_MOST_THREADS = 8


class TileService(Closing):
    """Makes tiles, each as the bytes of a file; close it when done.

    Files that can only be decoded whole (PNG, JPEG) are read by one thread, so that they are decoded once.
    """

    def __init__(self, scene: Scene, *, threads: int | None = None) -> None:
        self.scene = scene
        self.threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._own, self._caches = threading.local(), list[ReaderCache]()
        self._many = ThreadPoolExecutor(self.threads, thread_name_prefix="tiles")
        self._one = ThreadPoolExecutor(1, thread_name_prefix="tiles-of-decoded")
        paths = {path for layer in scene.layers for path in layer.rendering.paths}
        self._decoded = set(filter(_is_decoded_whole, paths))

    def submit(self, layer: int, index: TileIndex) -> Future[bytes]:
        """Make a tile in a thread.

        Returns:
            Its JPEG or PNG bytes, or the `ImageReadError` of a damaged file.
        """
        if not 0 <= layer < len(self.scene.layers):
            raise IndexError(layer)
        chosen = self.scene.layers[layer]
        place = TileGrid(chosen.size, self.scene.tile).place(index)
        lane = self._one if self._decoded.intersection(chosen.rendering.paths) else self._many
        return lane.submit(self._make, chosen.rendering, *place)

    def _make(self, rendering: Rendering, window: Window, size: Size) -> bytes:
        return encoded(rendering.draw(self._reader, window, size), rendering.media)

    def close(self) -> None:
        """Stop the threads and close all files; may be called twice."""
        for pool in (self._many, self._one):
            pool.shutdown(cancel_futures=True)
        while self._caches:
            self._caches.pop().close()

    def _reader(self, path: Path) -> ImageReader:
        """An open reader of this thread: a reader belongs to one."""
        if not hasattr(self._own, "cache"):
            self._own.cache = ReaderCache(_DECODED_BYTES, max_open=MAX_OPEN, overviews=True)
            self._caches.append(self._own.cache)
        reader: ImageReader = self._own.cache.get(path)
        return reader


def _is_decoded_whole(path: Path) -> bool:
    with open_image(path) as reader:
        return not reader.random_access
