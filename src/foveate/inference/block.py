"""A block, from the network's logits to its file: layers of one byte a pixel, and what else the results need of it."""

import hashlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.devices import PeakMemory
from foveate.errors import NetworkError, StoredBlockError
from foveate.files import sync_folder
from foveate.geometry import BoolArray, Size, Window
from foveate.membership import Membership
from foveate.tiff.raster import FULL, NODATA, Layers
from foveate.tiff.tiles import Piece, Place, TiledLayer
from foveate.types import Output

# Of `Layers`: "classes" (h, w), of overlapping classes (C, h, w) of 0 and 1, "confidence" (h, w), "entropy" (h, w) and
# "probabilities" (C, h, w) are uint8;
# "foveation", which whoever asks the policy adds, is float32 (rows, cols) of the block's cells, NaN where unknown;
# "passes", which whoever makes them adds, is uint8 (L, rows, cols) of the pixels of `PassMap`.
# Pixels that are turned into bytes at a time: so many stay in the processor's cache, and little is in memory twice.
AT_ONCE = 2**17


class FinishedBlock(NamedTuple):
    """A block's result.

    Attributes:
        window: the block, level-0 pixels.
        logits: (C, h, w); None where nothing of the block is looked at.
        passes: patches through the network that are counted for it; those of an image are each counted in one block.
        plan: (L, rows, cols) which looks were made where, see `PassMap.shares`; None where none is.
        scale_weights: (S, h, w) how much each scale counted at each pixel; None where the estimator's own map says so.
        skipped: passes that were not made, as they meet nothing that is looked at; counted in the same way.
        part: (h, w) whether pixels are looked at; None for all.
        release: gives the memory of the logits back, once nothing refers to them any more; need not be called.
    """

    window: Window
    logits: Tensor | None
    passes: int
    plan: Tensor | None = None
    scale_weights: Tensor | None = None
    skipped: int = 0
    part: BoolArray | None = None
    release: Callable[[], None] = lambda: None

    @property
    def pixels(self) -> int:
        """Pixels that were looked at."""
        return self.window.size.pixels if self.part is None else int(self.part.sum())

    def predicted(self) -> Tensor:
        """The logits of a block of which something is looked at; the device is waited for.

        Raises:
            NetworkError: when some of them are not numbers, which would become the first class.
        """
        assert self.logits is not None
        # Without a search for each: what is not a number stays so in a sum. -inf says that a class cannot be.
        if not bool(self.logits.sum() < torch.inf):
            raise NetworkError(
                f"the network gives values that are not numbers (NaN or infinity) in {self.window}: its weights are "
                "damaged, or the image is so unlike those of training that numbers grow beyond all bounds"
            )
        return self.logits


def block_layers(logits: Tensor, outputs: Collection[Output], membership: Membership) -> Layers:
    """The layers of a block.

    Args:
        logits: (C, h, w), C from 2 to 255.
        outputs: those wanted, as in `InferenceConfig.outputs`; "classes" is always there, "foveation", "passes"
            and "polygons" are not made from logits.
        membership: how classes are read off logits.

    Returns:
        By output: the classes; the probabilities; confidence in the classes; entropy as a share of its largest value.
        Of overlapping classes confidence is that in the least sure yes or no, entropy the mean of theirs. Shares from 0
        to 1 are bytes from 0 to `FULL`.
    """
    classes, height, width = logits.shape
    layers = unknown_layers(Size(height, width), classes, outputs, membership)
    rows = max(1, AT_ONCE // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        for name, values in _strip_layers(logits[:, strip], outputs, membership).items():
            layers[name][..., strip, :] = values
    return layers


def _strip_layers(logits: Tensor, outputs: Collection[Output], membership: Membership) -> Layers:
    decided, classes = membership.decided(logits).cpu().numpy(), len(logits)
    layers: Layers = {"classes": np.stack(membership.planes(decided, classes)) if membership.overlapping else decided}
    logits = logits.float()
    if not {"probabilities", "confidence"}.isdisjoint(outputs):
        probabilities = membership.probabilities(logits, dim=0)
        if "probabilities" in outputs:
            layers["probabilities"] = _bytes(probabilities)
        if "confidence" in outputs:
            layers["confidence"] = _bytes(membership.confidence(probabilities))
    if "entropy" in outputs:
        layers["entropy"] = _bytes(membership.entropy(logits, dim=0) / membership.most_entropy(classes))
    return layers


def pass_bytes(shares: Tensor) -> NDArray[np.uint8]:
    """Shares of passes as bytes; what is there stays there, however little."""
    return np.maximum(_bytes(shares), (shares > 0).numpy().astype(np.uint8))


def unknown_layers(size: Size, classes: int, outputs: Collection[Output], membership: Membership) -> Layers:
    """The layers of a block that could not be read: `NODATA` everywhere.

    Args:
        size: of the block.
        classes: C.
        outputs: as of `block_layers`.
        membership: says whether there is one class a pixel.
    """
    shapes: dict[Output, tuple[int, ...]] = {
        "classes": (classes, size.height, size.width) if membership.overlapping else (size.height, size.width),
        "probabilities": (classes, size.height, size.width),
        "confidence": (size.height, size.width),
        "entropy": (size.height, size.width),
    }
    wanted = {"classes", *outputs}
    return {name: np.full(shape, NODATA, np.uint8) for name, shape in shapes.items() if name in wanted}


def limit(layers: Layers, part: BoolArray) -> None:
    """Put `NODATA` into the layers of bytes wherever a block was not looked at.

    Args:
        layers: of the block; changed in place.
        part: (h, w) whether pixels were looked at.
    """
    for values in layers.values():
        values[..., ~part] = NODATA


def _bytes(shares: Tensor) -> NDArray[np.uint8]:
    rounded = (shares * FULL).round_().clamp_(0, FULL).to(torch.uint8)
    return rounded.cpu().numpy()


_ABOUT = "about.json"
_CHECKSUM_BYTES = 32
# Class maps shrink 20 times and more at the fastest setting; the slower ones save little of what is left.
_LEVEL = 1
# What reading bytes that are no block may raise.
_BROKEN = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


class StoredBlock(NamedTuple):
    """All that the results need of a block.

    Attributes:
        window: the block, level-0 pixels.
        layers: what is written, by name: arrays (h, w) or (bands, h, w), or those cut into tiles.
        passes: patches that went through the network for it.
        peak: memory of the process that worked on it.
        failure: why its pixels could not be read; empty where they could.
        looked_at: number of pixels that a class was predicted for.
        skipped: passes that were not made, as nothing that they meet is looked at.
        class_pixels: how many pixels each class has.
    """

    window: Window
    layers: Layers
    passes: int
    peak: PeakMemory
    failure: str = ""
    looked_at: int = 0
    skipped: int = 0
    class_pixels: Sequence[int] = ()


_LATER = ("failure", "looked_at", "skipped")


def save_block(path: Path, block: StoredBlock, plan: str, number: int) -> None:
    """Write a block: under another name, forced to the disk, then renamed.

    Args:
        path: final name.
        block: what to write.
        plan: name of the plan it belongs to, which reading must give again.
        number: of the block, as well.

    Raises:
        OSError: when that fails; nothing is left then.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        with partial.open("w+b") as file:
            _write(file, block, {"plan": plan, "number": number})
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def load_block(path: Path, plan: str, number: int) -> StoredBlock:
    """Read a block; its checksum is compared first, then whose it is.

    Raises:
        StoredBlockError: when the file is missing, torn, damaged, of another plan or another block.
    """
    try:
        with path.open("rb") as file:
            _check(file)
            with zipfile.ZipFile(file) as archive:
                about = json.loads(archive.read(_ABOUT))
                names = [name for name in archive.namelist() if name != _ABOUT]
                layers = {name: _read_layer(archive, name, about["tiles"].get(name)) for name in names}
            place, peak = Window(*about["window"]), PeakMemory(*about["peak"])
            later = (*(about[name] for name in _LATER), tuple(about["class_pixels"]))
            block = StoredBlock(place, layers, about["passes"], peak, *later)
            plan_found, number_found = about["plan"], about["number"]
    except _BROKEN as error:
        raise StoredBlockError(f"{path} is incomplete or damaged ({error})") from error
    if plan_found != plan:
        raise StoredBlockError(f"{path} belongs to another run")
    if number_found != number:
        raise StoredBlockError(f"{path} holds block {number_found}, not block {number}; it was copied or renamed")
    return block


def _write(file: IO[bytes], block: StoredBlock, whose: dict[str, Any]) -> None:
    """The checksum of all that follows, then an archive: what is known about the block, and its layers."""
    about = block._asdict() | whose
    about["window"] = _corners(block.window)
    layers = about.pop("layers")
    tiled = {name: layer for name, layer in layers.items() if isinstance(layer, TiledLayer)}
    about["tiles"] = {name: _index(layer) for name, layer in tiled.items()}
    file.seek(_CHECKSUM_BYTES)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr(_ABOUT, json.dumps(about))
        for name, values in layers.items():
            if isinstance(values, TiledLayer):
                data = b"".join(piece.data for piece in values.pieces.values())
                archive.writestr(name, data, zipfile.ZIP_STORED)  # compressed already
                continue
            with archive.open(name, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(values), allow_pickle=False)
    checksum = _checksum(file)
    file.seek(0)
    file.write(checksum)


def _check(file: IO[bytes]) -> None:
    found = file.read(_CHECKSUM_BYTES)
    if found != _checksum(file):
        raise ValueError("its checksum is wrong")


def _checksum(file: IO[bytes]) -> bytes:
    """Of all but the checksum itself: an archive has its own, but not for every byte."""
    file.seek(_CHECKSUM_BYTES)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # any binary file will do


def _corners(window: Window) -> list[int]:
    return [window.top, window.left, window.height, window.width]


def _index(layer: TiledLayer) -> dict[str, Any]:
    """What tells the pieces of a layer from one another in the bytes of all."""
    pieces = [[*place, *_corners(piece.window), piece.whole, len(piece.data)] for place, piece in layer.pieces.items()]
    return {"levels": layer.levels, "pieces": pieces}


def _read_layer(archive: zipfile.ZipFile, name: str, index: dict[str, Any] | None) -> Any:
    """An array, or where there is an index its tiles."""
    if index is not None:
        data, start, pieces = archive.read(name), 0, {}
        for level, row, col, top, left, height, width, whole, length in index["pieces"]:
            window = Window(top, left, height, width)
            pieces[Place(level, row, col)] = Piece(window, data[start : start + length], whole)
            start += length
        return TiledLayer(index["levels"], pieces)
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
