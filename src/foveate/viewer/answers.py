"""Overlapping classes: a yes or no for each, all of them as sets of bits; and where predictions differ from labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foveate.geometry import Size, Window
from foveate.viewer.rendering import NOT_COUNTED, Media, OpenReader, Rendering, read_nearest

# Codes of answers; `NOT_COUNTED` where nothing is known.
NO, YES = 0, 1
# Codes of errors; of a yes or no it is said which.
WRONG, RIGHT, TOO_MUCH = 1, 2, 3
MISSED = WRONG
MOST_IN_SET = 7  # classes: a bit each, so that all of them are not the code of "not counted"


@dataclass(frozen=True, slots=True)
class Band:
    """Yes or no from a band of a raster: yes where it is not 0.

    Attributes:
        path: the raster.
        band: which, from 0.
        meaning: value in the file -> answer, where that is another; values that are not named are not counted.
        unknown: stored value that means that nothing is known.
    """

    path: Path
    band: int
    meaning: tuple[tuple[int, int], ...] | None = None
    unknown: float | None = None
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The raster."""
        return (self.path,)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Answers (h, w), each the one at the centre of its pixel."""
        (values,) = read_nearest(open_reader(self.path), window, size, (self.band,))
        named = self.meaning is not None
        answers = np.full(values.shape, NOT_COUNTED, np.uint8) if named else (values > 0).astype(np.uint8)
        for value, answer in self.meaning or ():
            answers[values == value] = answer
        if self.unknown is not None:
            answers[values == self.unknown] = NOT_COUNTED
        return answers


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No everywhere: of a class without a mask."""

    media: ClassVar[Media] = "png"
    paths: ClassVar[tuple[Path, ...]] = ()

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Answers (h, w)."""
        del open_reader, window
        return np.full((size.height, size.width), NO, np.uint8)


@dataclass(frozen=True, slots=True)
class YesNo:
    """One of several overlapping classes, to be shown alone.

    Attributes:
        answer: where it is.
        code: of the class.
    """

    answer: Rendering
    code: int
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """What the answer is read from."""
        return self.answer.paths

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """The code (h, w) where the class is, else `NOT_COUNTED`."""
        yes = self.answer(open_reader, window, size) == YES
        return np.where(yes, np.uint8(self.code), np.uint8(NOT_COUNTED))


@dataclass(frozen=True, slots=True)
class Sets:
    """All classes of a pixel: bit k of its code is the answer of the class with code k, below `MOST_IN_SET`.

    Attributes:
        answers: code and answer of each class.
    """

    answers: tuple[tuple[int, Rendering], ...]
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """What the answers are read from."""
        return tuple(dict.fromkeys(path for _, answer in self.answers for path in answer.paths))

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """Codes (h, w); `NOT_COUNTED` where one class is not."""
        codes = np.zeros((size.height, size.width), np.uint8)
        unknown = np.zeros(codes.shape, np.bool_)
        for code, answer in self.answers:
            found = answer(open_reader, window, size)
            codes |= (found == YES).astype(np.uint8) << np.uint8(code)
            unknown |= found == NOT_COUNTED
        codes[unknown] = NOT_COUNTED
        return codes


@dataclass(frozen=True, slots=True)
class Errors:
    """Where a prediction differs from the labels.

    Attributes:
        found: codes of the prediction.
        truth: codes of the labels, of the same size.
        by_kind: both are yes or no, and it is told whether a wrong pixel was missed or is too much.
    """

    found: Rendering
    truth: Rendering
    by_kind: bool = False
    media: ClassVar[Media] = "png"

    @property
    def paths(self) -> tuple[Path, ...]:
        """What both are read from."""
        return (*self.found.paths, *self.truth.paths)

    def __call__(self, open_reader: OpenReader, window: Window, size: Size) -> NDArray[np.uint8]:
        """WRONG, RIGHT or TOO_MUCH; NOT_COUNTED where there is no label or no prediction."""
        guess, truth = (side(open_reader, window, size) for side in (self.found, self.truth))
        verdict = np.where(guess == truth, np.uint8(RIGHT), np.uint8(WRONG))
        if self.by_kind:
            verdict[(guess == YES) & (truth == NO)] = TOO_MUCH
        verdict[(truth == NOT_COUNTED) | (guess == NOT_COUNTED)] = NOT_COUNTED
        return verdict
