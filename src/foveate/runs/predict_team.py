"""Share the work on images: with processes of this computer or of others, or with the workers of a Dask cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from foveate.config_base import ConfigTree
from foveate.devices import share_cores
from foveate.errors import FoveateError, StoppedError, WorkerError
from foveate.inference.executor import dask_executor, pieces_of
from foveate.inference.session import Session, Share
from foveate.inference.team import LEFT_OUT, Team, launched_team, started_team
from foveate.processes import stopping
from foveate.runs.folder import TrainedRun
from foveate.runs.predict import PredictionRequest, area_for, files_of, opened, prediction_of, updated

_WORKERS_GUESSED = 8  # workers may come and go; each gets pieces of an image again and again


@contextmanager
def predicting(request: PredictionRequest, devices: Sequence[str]) -> Iterator[Team]:
    """The team for a request: one that torchrun started, or a process for each device.

    Args:
        request: what to do.
        devices: of the processes to start; under torchrun, what its processes may use, in turns.
    """
    with ExitStack() as stack:
        team = stack.enter_context(launched_team(devices, request.out))
        if team is None:
            team = stack.enter_context(started_team(devices, _help_in_process, request))
        if team.local > 1:
            share_cores(team.local)
        stack.enter_context(team.ending_with_the_leader())
        yield team


@contextmanager
def on_dask(request: PredictionRequest, device: str, address: str, workers: int | None = None) -> Iterator[Share]:
    """What shares the blocks of a request out to the workers of a Dask cluster, which see the same files.

    Args:
        request: what to do.
        device: of each worker.
        address: of the scheduler, or "local".
        workers: of "local".

    Raises:
        ConfigError: when the extra `dask` is missing, or nobody answers.
    """
    with dask_executor(address, workers) as executor:
        yield shared_by(executor, request, device)


def shared_by(executor: Executor, request: PredictionRequest, device: str) -> Share:
    """What gives the blocks of a request's images to an executor, whose workers see the same files.

    Args:
        executor: with `submit`, as of `concurrent.futures`.
        request: what to do.
        device: of each worker.
    """
    # On a worker the folder that it runs in is another.
    there = replace(request, run=request.run.resolve(), out=request.out.resolve(), images=_absolute(request.images))

    def share(number: int, settled: ConfigTree, blocks: Sequence[int]) -> list[Future[list[str]]]:
        pieces = [[blocks[i] for i in piece] for piece in pieces_of(len(blocks), _WORKERS_GUESSED)]
        return [executor.submit(do_blocks, there, number, device, settled, piece) for piece in pieces]

    return share


def _absolute(images: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(image).resolve()) if Path(image).exists() else image for image in images)


def do_blocks(
    request: PredictionRequest, number: int, device: str, settled: ConfigTree, blocks: Sequence[int]
) -> list[str]:
    """Predict numbered blocks of an image of a request, and put them into its store; on any computer that sees it.

    Returns:
        What the user should be told.
    """
    told: list[str] = []
    run, image = _loaded(request, device), request.images[number]
    with opened(run, image) as source:
        config = updated(run.config.inference, settled, list(settled))
        area = area_for(run, source, image, request.roi)
        prediction = prediction_of(run, source, files_of(image, request.out), config, area, request.strict)
        prediction.do(blocks, told.append)
    return told


@lru_cache(maxsize=1)
def _loaded(request: PredictionRequest, device: str) -> TrainedRun:
    return request.load(device)


def help_predict(
    request: PredictionRequest, team: Team, tell: Callable[[str], None], should_stop: Callable[[], bool]
) -> None:
    """Work on the images of a request beside the process that leads, until all are done or it ends.

    Args:
        request: what to do.
        team: as this process sees it.
        tell: told what the user should know.
        should_stop: asked after every block.
    """
    run = request.load(team.device)
    for number, image in enumerate(request.images):
        session = Session(team, number, tell=tell, should_stop=should_stop)
        try:
            word = _word(session)
            if word != LEFT_OUT:
                _help_with(run, image, request, json.loads(word), session)
        except (StoppedError, WorkerError):
            if should_stop() or not _leader_is_there(session):
                return
        except FoveateError as error:
            tell(f"process {team.rank} cannot help with {image}: {error}")


def _help_in_process(team: Team, request: PredictionRequest) -> None:
    """What a started process does; it stops where the one that started it is gone."""
    parent = os.getppid()
    share_cores(team.local)
    with stopping(_nothing) as stop:
        help_predict(request, team, _say, lambda: stop() or os.getppid() != parent)


def _nothing() -> None:
    """The process that leads says that it stops."""


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _word(session: Session) -> str:
    """Wait for what the leader says about an image."""
    while (word := session.team.hears(session.number)) is None:
        if session.should_stop():
            raise StoppedError("stopped")
        time.sleep(0.1)
    return word


def _leader_is_there(session: Session) -> bool:
    try:
        session.team.hears(session.number)
    except WorkerError:
        return False
    return True


def _help_with(run: TrainedRun, image: str, request: PredictionRequest, settled: ConfigTree, session: Session) -> None:
    with opened(run, image) as source:
        config = updated(run.config.inference, settled, list(settled))
        area = area_for(run, source, image, request.roi)
        prediction_of(run, source, files_of(image, request.out), config, area, request.strict).help(session)
