"""`predict`: segment image files with a trained run, in one process or several, on one computer or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foveate.config_base import ConfigTree
from foveate.data.area import Area
from foveate.data.images import open_working
from foveate.data.readers.base import Address
from foveate.data.roi import Roi, area_of, tissue_is_sought
from foveate.errors import ConfigError
from foveate.geometry import Size
from foveate.inference.assemble import PredictionFiles
from foveate.inference.config import InferenceConfig
from foveate.inference.job import ALONE, Prediction, on_disk
from foveate.inference.memory import MemoryModel, fitted
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.plan import LookPlan
from foveate.inference.runner import in_passes, in_seconds
from foveate.inference.session import Session, Start
from foveate.inference.source import PixelSource
from foveate.inference.team import LEFT_OUT
from foveate.inference.worker import SIZES, SPENDING
from foveate.runs.folder import RunFolder, TrainedRun
from foveate.runs.tuned import with_tuned


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What to do with images; sent to the processes that help.

    Attributes:
        run: folder of the trained run.
        images: files or URLs.
        out: folder for the results.
        checkpoint: "best" or "last".
        overrides: `key.subkey=value` changes to the configuration.
        overwrite: replace existing results.
        resume: go on with what an interrupted run left.
        strict: stop at a block that cannot be read.
        memory: most bytes for all processes of a computer together; None for no limit.
        roi: regions of interest; None for none.
    """

    run: Path
    images: tuple[str, ...]
    out: Path
    checkpoint: str = "best"
    overrides: tuple[str, ...] = ()
    overwrite: bool = False
    resume: bool = False
    strict: bool = False
    memory: int | None = None
    roi: Roi | None = None

    def __post_init__(self) -> None:
        check_stems(self.images)

    def memory_of_each(self, processes: int) -> int | None:
        """What each of the processes of a computer may have of the limit."""
        return None if self.memory is None else self.memory // processes

    def load(self, device: str) -> TrainedRun:
        """The trained run on a device."""
        return RunFolder(self.run).load(self.checkpoint, torch.device(device), list(self.overrides))


def stem_of(image: Path | str) -> str:
    """What the results of an image are called after: the name of its file or URL, without suffix."""
    return Address.of(image).name


def files_of(image: Path | str, out: Path | str) -> PredictionFiles:
    """Where the results of an image go."""
    return PredictionFiles.in_folder(Path(out), stem_of(image))


def check_stems(images: Sequence[Path | str]) -> None:
    """Refuse images whose results would have the same names.

    Raises:
        ConfigError: naming the stems.
    """
    repeated = [stem for stem, count in Counter(map(stem_of, images)).items() if count > 1]
    if repeated:
        raise ConfigError(f"several images are called {', '.join(repeated)}; give each its own --out folder")


def predict(  # noqa: PLR0913 - the ways to ask for one image
    run: TrainedRun,
    image: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    strict: bool = False,
    roi: Roi | None = None,
    session: Session = ALONE,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Segment one image of any size into rasters and a summary, in memory bounded by `inference.block_size`.

    Every finished block is stored beside the results at once. `resume` continues an interrupted run, and its results
    are the same bytes as those of an uninterrupted one.

    Args:
        run: the trained run, from `load_run`.
        image: an image file, or the URL of one.
        out: folder for the results, named after the image's stem.
        overwrite: replace existing results, and discard the blocks of an interrupted run.
        resume: continue an interrupted run; results that this run has already finished are kept.
        strict: stop at a block that cannot be read, instead of leaving it empty and reporting it.
        roi: the image's region of interest; passes that lie wholly outside it are not made.
        session: memory limit, other processes, and functions that receive messages or can stop the run.
        on_progress: called with the share of the work that was just done; the shares add up to 1.

    Returns:
        The summary, as in the JSON file: size, cost, pixels of each class, blocks that could not be read.

    Raises:
        ImageReadError, UnsupportedImageError: when the image is missing, damaged or of no known format.
        DatasetError: when its bands do not fit the network, or it is unlike the images that the run was trained on.
        OutputExistsError: when a result, or the blocks of an interrupted run, exist and may not be replaced.
        OutputInUseError: when another process is writing these results.
        OutputWriteError: when a result could not be written; no half-written file has its name.
        ConfigError: when the run to resume used another model, image or configuration (the message says what
            changed), or when the session's memory limit is too low.
        DeviceMemoryError: when not even one patch at a time fits into the device's memory.
        StoppedError: when the session was asked to stop.
    """
    files = files_of(image, out)
    try:
        with opened(run, image) as source:
            for note in (*source.notes, *_wider_than(source.size, run)):
                session.tell(f"{stem_of(image)}: {note}")
            area = area_for(run, source, image, roi, session.tell)
            config, start = _fitted(run, source, area, files, session.memory, resume=resume)
            session.on_start(start)
            total = source.size.pixels
            return prediction_of(run, source, files, config, area, strict).run(
                session,
                overwrite=overwrite,
                resume=resume,
                on_pixels=None if on_progress is None else lambda pixels: on_progress(pixels / total),
            )
    finally:
        session.team.announce(session.number, LEFT_OUT)  # nothing is left to do


def _wider_than(image: Size, run: TrainedRun) -> tuple[str, ...]:
    """What to tell of a look that no image of this size fills."""
    segmenter = run.segmenter
    plan = LookPlan.of(run.config.inference, segmenter.estimator, segmenter.scales)
    view, longest = plan.looks[-1].view, max(image.height, image.width)
    if not plan.pyramid or view <= longest:
        return ()
    narrower = [one for one in segmenter.views_passed if one <= longest]
    advice = f"; --set 'inference.looks=[[{narrower[-1]},1]]' uses only looks that fit" if narrower else ""
    return (
        f"the image of {image.text} px is smaller than the widest look of {view} px, which shows mirrored "
        f"borders{advice}",
    )


@contextmanager
def opened(run: TrainedRun, image: Path | str) -> Iterator[PixelSource]:
    """The pixels of an image as a run sees them; each reading thread opens it for itself."""
    data = run.config.data
    with ExitStack() as stack:
        reader = stack.enter_context(open_working(image, data))
        yield PixelSource.of(reader, data, run.device, lambda: open_working(image, data))


def area_for(
    run: TrainedRun, source: PixelSource, image: Path | str, roi: Roi | None, tell: Callable[[str], None] | None = None
) -> Area:
    """What is looked at: inside the region, with data, and of a slide the tissue."""
    config = run.config
    reader, tissue = source.reader, config.inference.tissue
    area = area_of(reader, stem_of(image), roi=roi, nodata=config.data.use_nodata, tissue=tissue)
    if tell is not None and area.tissue is not None:
        glass = f"glass is left out, {1 - float(area.tissue.mask.mean()):.0%} of {stem_of(image)}"
        tell(f"{glass}; --set inference.tissue=false predicts there too")
    elif tell is not None and tissue_is_sought(reader, tissue):
        tell(f"no tissue was found on {stem_of(image)}, so the whole image is predicted")
    return area


def prediction_of(
    run: TrainedRun, source: PixelSource, files: PredictionFiles, config: InferenceConfig, area: Area, strict: bool
) -> Prediction:
    """What is to be done with an image: the job, of a run's classes."""
    classes = run.config.data.classes
    return Prediction(run.segmenter, source, files, classes=classes, config=config, area=area, strict=strict)


def _fitted(
    run: TrainedRun, source: PixelSource, area: Area, files: PredictionFiles, memory: int | None, *, resume: bool
) -> tuple[InferenceConfig, Start]:
    """The configuration, its blocks and batches as those to go on with, or as the memory allows; and what it needs."""
    config, found = run.config.inference, on_disk(files) if resume else None
    if in_seconds(config.budget):
        config = updated(config, found, SPENDING) if found else counted_in_passes(run, source, config, area)
    model = MemoryModel.of(run.segmenter, source, config, len(run.config.data.classes), area)
    if memory is not None:
        config = updated(config, found, SIZES) if found else fitted(model, config, run.segmenter, memory)
    bound = model.bound(config.block_size, config.batch_size)
    return config, Start(source.size.megapixels, bound, config.block_size, config.batch_size)


def counted_in_passes(
    run: TrainedRun, source: PixelSource, config: InferenceConfig, area: Area | None = None
) -> InferenceConfig:
    """The configuration with its seconds counted in passes, and the looks that were chosen for so many."""
    counted = in_passes(config, ready_to_predict(run.segmenter, run.device), source, area)
    return with_tuned(counted, run.tuned, run.segmenter.estimator, run.segmenter.scales.target)


def updated(config: InferenceConfig, values: ConfigTree, names: Sequence[str]) -> InferenceConfig:
    """The configuration with those values of the given names."""
    return InferenceConfig.parse({**config.tree(), **{name: values[name] for name in names}})
