"""`predict`: segment image files with a trained run, in one process or several, on one computer or several."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from foveate import inference
from foveate.config_base import ConfigTree
from foveate.data import Address, open_working
from foveate.data.area import Area, Roi, area_of, tissue_is_sought
from foveate.devices import share_cores
from foveate.errors import ConfigError, FoveateError, StoppedError, WorkerError
from foveate.geometry import Size
from foveate.inference import InferenceConfig, PixelSource, PredictionFiles, ready_to_predict
from foveate.inference.job import ALONE, Prediction, on_disk
from foveate.inference.plan import LookPlan
from foveate.inference.runner import in_passes, in_seconds
from foveate.inference.worker import SIZES, SPENDING
from foveate.processes import stopping
from foveate.runs.folder import RunFolder, TrainedRun
from foveate.runs.tuned import with_tuned
from foveate.texts import size_text

_WORKERS_GUESSED = 8  # workers may come and go; each gets pieces of an image again and again


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What to do with images; sent to the processes that help."""

    run: Path  # folder of the trained run
    images: tuple[str, ...]  # files or URLs
    out: Path  # folder for the results
    checkpoint: str = "best"  # "best" or "last"
    overrides: tuple[str, ...] = ()  # `key.subkey=value` changes to the configuration
    overwrite: bool = False  # replace existing results
    resume: bool = False  # go on with what an interrupted run left
    strict: bool = False  # stop at a block that cannot be read
    memory: int | None = None  # most bytes for all processes of a computer together; None for no limit
    roi: Roi | None = None  # regions of interest; None for none

    def __post_init__(self) -> None:
        repeated = [stem for stem, count in Counter(map(stem_of, self.images)).items() if count > 1]
        if repeated:
            raise ConfigError(f"several images are called {', '.join(repeated)}; give each its own --out folder")

    def load(self, device: str) -> TrainedRun:
        """The trained run on a device."""
        return RunFolder(self.run).load(self.checkpoint, torch.device(device), list(self.overrides))


def stem_of(image: Path | str) -> str:
    """What the results of an image are called after: the name of its file or URL, without suffix."""
    return Address.of(image).name


def files_of(image: Path | str, out: Path | str) -> PredictionFiles:
    """Where the results of an image go."""
    return PredictionFiles.in_folder(Path(out), stem_of(image))


def predict(  # noqa: PLR0913 - the ways to ask for one image
    run: TrainedRun,
    image: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    strict: bool = False,
    roi: Roi | None = None,
    session: inference.session.Session = ALONE,
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
            if session.memory is not None and start.memory.largest > session.memory and files.store.exists():
                session.tell(
                    f"{stem_of(image)}: the interrupted run keeps its blocks and batches, which need more than the "
                    f"{size_text(session.memory)} of --memory; --overwrite starts again with smaller ones"
                )
            total, report = source.size.pixels, on_progress or (lambda _: None)
            summary = prediction_of(run, source, files, config, area, strict).run(
                session,
                overwrite=overwrite,
                resume=resume,
                on_pixels=lambda pixels: report(pixels / total),
            )
            if not summary["share_looked_at"]:
                inside = "" if area.region is None else " inside the region of interest"
                session.tell(f"{stem_of(image)}: no pixel{inside} is to be looked at, so the class map is empty (255)")
            return summary
    finally:
        session.team.announce(session.number, inference.team.LEFT_OUT)  # nothing is left to do


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
    with open_working(image, data) as reader:
        yield PixelSource.of(reader, data, run.device, lambda: open_working(image, data))


def area_for(
    run: TrainedRun, source: PixelSource, image: Path | str, roi: Roi | None, tell: Callable[[str], None] | None = None
) -> Area:
    """What is looked at: inside the region, with data, and of a slide the tissue."""
    config = run.config
    reader, tissue = source.reader, config.inference.tissue
    area = area_of(reader, stem_of(image), roi=roi, nodata=config.data.use_nodata, tissue=tissue)
    if tell is not None and area.region is not None and area.region.note:
        tell(f"{stem_of(image)}: {area.region.note}")
    if tell is not None and area.tissue is not None:
        glass = f"glass is left out, {1 - float(area.tissue.mask.mean()):.1%} of {stem_of(image)}"
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
) -> tuple[InferenceConfig, inference.session.Start]:
    """The configuration, its blocks and batches as those to go on with, or as the memory allows; and what it needs."""
    config, found = run.config.inference, on_disk(files) if resume else None
    if in_seconds(config.budget):
        config = updated(config, found, SPENDING) if found else counted_in_passes(run, source, config, area)
    model = inference.memory.MemoryModel.of(run.segmenter, source, config, len(run.config.data.classes), area)
    if memory is not None:
        config = (
            updated(config, found, SIZES) if found else inference.memory.fitted(model, config, run.segmenter, memory)
        )
    bound = model.bound(config.block_size, config.batch_size)
    return config, inference.session.Start(source.size.megapixels, bound, config.block_size, config.batch_size)


def counted_in_passes(
    run: TrainedRun, source: PixelSource, config: InferenceConfig, area: Area | None = None
) -> InferenceConfig:
    """The configuration with its seconds counted in passes, and the looks that were chosen for so many."""
    counted = in_passes(config, ready_to_predict(run.segmenter, run.device), source, area)
    return with_tuned(counted, run.tuned, run.segmenter.estimator, run.segmenter.scales.target)


def updated(config: InferenceConfig, values: ConfigTree, names: Sequence[str]) -> InferenceConfig:
    """The configuration with those values of the given names."""
    return InferenceConfig.parse({**config.tree(), **{name: values[name] for name in names}})


@contextmanager
def predicting(request: PredictionRequest, devices: Sequence[str]) -> Iterator[inference.team.Team]:
    """The team for a request: one that torchrun started, whose processes use the devices in turns, or one a device."""
    with ExitStack() as stack:
        team = stack.enter_context(inference.team.launched_team(devices, request.out))
        if team is None:
            team = stack.enter_context(inference.team.started_team(devices, _help_in_process, request))
        if team.local > 1:
            share_cores(team.local)
        stack.enter_context(team.ending_with_the_leader())
        yield team


def shared_by(executor: Executor, request: PredictionRequest, device: str) -> inference.session.Share:
    """What gives the blocks of a request's images to an executor, whose workers see the same files."""
    # On a worker the folder that it runs in is another.
    images = tuple(str(Path(image).resolve()) if Path(image).exists() else image for image in request.images)
    there = replace(request, run=request.run.resolve(), out=request.out.resolve(), images=images)

    def share(number: int, settled: ConfigTree, blocks: Sequence[int]) -> list[Future[list[str]]]:
        pieces = [[blocks[i] for i in piece] for piece in inference.executor.pieces_of(len(blocks), _WORKERS_GUESSED)]
        return [executor.submit(do_blocks, there, number, device, settled, piece) for piece in pieces]

    return share


def do_blocks(
    request: PredictionRequest, number: int, device: str, settled: ConfigTree, blocks: Sequence[int]
) -> list[str]:
    """Predict numbered blocks of an image into its store, on any computer; what the user should be told."""
    told: list[str] = []
    with _settled(request, _loaded(request, device), number, settled) as prediction:
        prediction.do(blocks, told.append)
    return told


@contextmanager
def _settled(request: PredictionRequest, run: TrainedRun, number: int, settled: ConfigTree) -> Iterator[Prediction]:
    """The job of an image as the process that leads has settled it."""
    image = request.images[number]
    with opened(run, image) as source:
        config = updated(run.config.inference, settled, list(settled))
        area = area_for(run, source, image, request.roi)
        yield prediction_of(run, source, files_of(image, request.out), config, area, request.strict)


@lru_cache(maxsize=1)
def _loaded(request: PredictionRequest, device: str) -> TrainedRun:
    return request.load(device)


def help_predict(
    request: PredictionRequest, team: inference.team.Team, tell: Callable[[str], None], should_stop: Callable[[], bool]
) -> None:
    """Work on the images of a request beside the process that leads, until all are done or it ends."""
    run = request.load(team.device)
    for number, image in enumerate(request.images):
        session = inference.session.Session(team, number, tell=tell, should_stop=should_stop)
        try:
            word = _word(session)
            if word != inference.team.LEFT_OUT:
                with _settled(request, run, number, json.loads(word)) as prediction:
                    prediction.help(session)
        except (StoppedError, WorkerError):
            if should_stop() or not _leader_is_there(session):
                return
        except FoveateError as error:
            tell(f"process {team.rank} cannot help with {image}: {error}")


def _help_in_process(team: inference.team.Team, request: PredictionRequest) -> None:
    """What a started process does; it stops where the one that started it is gone."""
    parent = os.getppid()
    share_cores(team.local)
    with stopping(lambda: None) as stop:  # the process that leads says that it stops
        help_predict(request, team, _say, lambda: stop() or os.getppid() != parent)


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _word(session: inference.session.Session) -> str:
    """Wait for what the leader says about an image."""
    while (word := session.team.hears(session.number)) is None:
        if session.should_stop():
            raise StoppedError("stopped")
        time.sleep(0.1)
    return word


def _leader_is_there(session: inference.session.Session) -> bool:
    try:
        session.team.hears(session.number)
    except WorkerError:
        return False
    return True
