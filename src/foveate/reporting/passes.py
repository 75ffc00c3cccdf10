"""Which fields of view were passed through the network where, from the map of passes that was written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveate.data import ImageReader, open_dataset, open_image
from foveate.errors import ImageReadError, translated
from foveate.foveation.config import FoveationConfig
from foveate.geometry import FloatArray, IntArray, Size, Window, windows_over
from foveate.looks.passes import MappedLook
from foveate.reporting.panels import Panel
from foveate.tiff.raster import FULL

ALMOST_ALL = 0.95
_AT_ONCE = 2**24  # values that are read at a time


@dataclass(frozen=True, slots=True)
class PassesFile:
    """A map of passes, see `foveate.looks.passes.PassMap`."""

    path: Path  # the file
    size: Size  # of the map
    step: int  # side of a pixel of the map, level-0 pixels
    looks: tuple[MappedLook, ...]  # by band

    @classmethod
    def read(cls, path: Path) -> "PassesFile":
        """What the file says of itself.

        Raises:
            ImageReadError: when it is no map of passes.
        """
        with translated(ImageReadError, f"{path} is not a map of passes", "predict again"):
            with open_dataset(path) as source:
                tags, size = source.tags(), Size(source.height, source.width)
            looks = tuple(MappedLook(int(view), int(side)) for view, side in json.loads(tags["looks"]))
            return cls(path, size, int(tags["cell"]), looks)

    @property
    def views(self) -> list[int]:
        """The fields of view there may be, level-0 pixels, ascending."""
        return sorted({look.view for look in self.looks})

    def made(self, window: Window, size: Size) -> FloatArray:
        """The field of view (h, w) at every place of a window, level-0 pixels; NaN where no pass was made.

        Where a place was passed closer as well as widely, the closer one counts. Where one pass is mixed from several
        fields of view, or several are averaged, it is their mean by weight.

        Args:
            window: level-0 pixels.
            size: of the result; the places are the centres of its pixels.
        """
        shares = self._shares(*window.centres(size))
        with np.errstate(invalid="ignore", divide="ignore"):
            means: FloatArray = np.tensordot(self._views, shares, axes=1) / shares.sum(axis=0)
        return means

    def chosen(self, rows: IntArray, cols: IntArray) -> FloatArray:
        """The field of view that counted most (h, w) at the crossings of h rows and w columns, level-0 pixels.

        NaN where no pass was made; of equal ones the narrowest. Rows and columns ascend.
        """
        shares = self._shares(rows, cols)
        return np.where(shares.any(axis=0), self._views[shares.argmax(axis=0)], np.nan).astype(np.float32)

    def panel(self, window: Window, size: Size) -> Panel:
        """`made` as a panel; its colours span the fields of view."""
        return Panel("field of view of the passes", self.made(window, size), tuple(self.views), "pixels")

    def passes(self) -> dict[int, float]:
        """How many passes each field of view had, by weight."""
        counts = dict.fromkeys(self.views, 0.0)
        height = max(1, _AT_ONCE // (len(self.looks) * self.size.width))
        with open_image(self.path) as reader:
            for window in windows_over(self.size, height, self.size.width):
                sums = reader.read(window).sum(axis=(1, 2), dtype=np.int64) / FULL
                for look, count in zip(self.looks, sums, strict=True):
                    counts[look.view] += float(count)
        return counts

    def _shares(self, rows: IntArray, cols: IntArray) -> FloatArray:
        """The shares (L, h, w) of the looks at the crossings of rows and columns, level-0 pixels, read in strips."""
        rows, cols = (
            np.minimum(places // self.step, length - 1)
            for places, length in ((rows, self.size.height), (cols, self.size.width))
        )
        strips = max(1, len(self.looks) * self.size.width * int(rows[-1] - rows[0] + 1) // _AT_ONCE)
        with open_image(self.path) as reader:
            parts = np.array_split(rows, min(strips, len(rows)))
            return np.concatenate([self._strip(reader, part, cols) for part in parts], axis=1)

    def _strip(self, reader: ImageReader, rows: IntArray, cols: IntArray) -> FloatArray:
        # A look that is k pixels wide is noted at the first of them.
        factors = [max(1, look.side // self.step) for look in self.looks]
        top = max(0, int(rows[0]) - max(factors))
        window = Window(top, 0, int(rows[-1]) - top + 1, self.size.width)
        values = reader.read(window).astype(np.float32) / np.float32(FULL)
        # Closer looks lie inside wider ones; else all passes begin on the same grid, and may overlap.
        if len({look.side for look in self.looks}) > 1:
            corners = [(rows // factor * factor - top, cols // factor * factor) for factor in factors]
            bands = [band[np.ix_(*corner)] for band, corner in zip(values, corners, strict=True)]
            return self._closest(np.stack(bands))
        shares = values[:, (rows - top)[:, None], cols]
        # Where passes overlap, none begins in the last pixels: the one before reaches over them.
        for up, left in ((1, 0), (0, 1), (1, 1)) if self.looks[0].side > self.step else ():
            before = values[:, np.maximum(rows - up - top, 0)[:, None], np.maximum(cols - left, 0)]
            shares = np.where(shares.any(axis=0), shares, before)
        return shares

    def _closest(self, shares: FloatArray) -> FloatArray:
        """Of each place only the narrowest of the looks (L, h, w) that were made there."""
        views = np.where(shares > 0, self._views[:, None, None], np.inf)
        closest: FloatArray = (np.isfinite(views) & (views == views.min(axis=0))).astype(np.float32)
        return closest

    @property
    def _views(self) -> FloatArray:
        return np.array([look.view for look in self.looks], np.float32)


def one_view_note(passes: Mapping[int, float]) -> str | None:
    """A sentence where nearly all passes use one field of view, of several; None where they differ.

    Args:
        passes: how many each field of view has, by weight; ascending, all that a policy may choose.
    """
    total = sum(passes.values())
    if len(passes) < 2 or not total:
        return None
    view, count = max(passes.items(), key=lambda item: item[1])
    if count / total <= ALMOST_ALL:
        return None
    fixed = f"fixed_{list(passes).index(view) + 1}"
    # Not rounded up: "100 %" would say that there is no other.
    percent = 100.0 if count == total else min(99.9, round(100 * count / total, 1))
    return (
        f"{percent:g} % of the passes use one field of view, {view} px, so the policy makes hardly any choice. "
        f"The estimator {fixed} does the same"
    )


def note_of_prediction(path: Path, foveation: FoveationConfig) -> str | None:
    """`one_view_note` of a map of passes, where there is one and a policy made them."""
    if not foveation.has_policy or not path.exists():
        return None
    return one_view_note(PassesFile.read(path).passes())


def note_of_training(history: Sequence[Mapping[str, float]], foveation: FoveationConfig) -> str | None:
    """`one_view_note` of the last validation in the rows of metrics.csv, where a policy was asked."""
    names = [f"val/share/{view}" for view in foveation.fields_of_view]
    last = next((row for row in reversed(history) if all(name in row for name in names)), None)
    if last is None or not foveation.has_policy:
        return None
    return one_view_note({view: last[name] for view, name in zip(foveation.fields_of_view, names, strict=True)})
