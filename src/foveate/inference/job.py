"""The prediction of one image: what is done, with which run, and where the results go."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from foveate.config_base import ConfigTree, differences
from foveate.data.area import Area
from foveate.data.sections import ClassConfig
from foveate.devices import CostMeter
from foveate.errors import ConfigError
from foveate.files import refuse_existing, write_text
from foveate.inference.assemble import Assembly, PredictionFiles, check_results, summary_tree
from foveate.inference.config import InferenceConfig
from foveate.inference.fingerprint import ImageFiles, image_tree, model_tree
from foveate.inference.pipeline import ready_to_predict
from foveate.inference.plan import BlockGrid, LookPlan
from foveate.inference.runner import sized
from foveate.inference.session import Session
from foveate.inference.source import PixelSource
from foveate.inference.store import BlockStore, check_space
from foveate.inference.worker import SIZES, SPENDING, Work, Worker
from foveate.package import __version__
from foveate.segmenter import FoveatedSegmenter
from foveate.texts import read_json, read_tree
from foveate.tiff.raster import small_cache
from foveate.writers.outputs import OutputSpec, remove_result, tilings_of


def on_disk(files: PredictionFiles) -> ConfigTree | None:
    """What the interrupted run whose blocks are there had settled, or that of the results; None without.

    Values of `SIZES` and `SPENDING` by name.
    """
    for path in (files.store / "plan.json", files.summary):
        try:
            tree = read_tree(path, ConfigError, "start again with --overwrite")
            inference = tree.get("plan", tree)["inference"]
            return {name: inference[name] for name in (*SIZES, *SPENDING)}
        except (ConfigError, KeyError, TypeError, AttributeError):
            continue
    return None


ALONE = Session()


class Prediction:
    """The prediction of one image: what to do, and everything that decides the bytes of the result.

    Args:
        segmenter: a trained segmenter; put into eval mode and onto the source's device.
        source: the image.
        files: where the results go; the preview is not made here.
        classes: names and colours, in the order of the class ids.
        config: of inference.
        area: what is looked at, see `area_of`; everything when None. `config.tissue` is for whoever makes it.
        strict: stop at a block that cannot be read; otherwise it is left empty, and reported.
    """

    def __init__(
        self,
        segmenter: FoveatedSegmenter,
        source: PixelSource,
        files: PredictionFiles,
        *,
        classes: list[ClassConfig],
        config: InferenceConfig,
        area: Area | None = None,
        strict: bool = False,
    ) -> None:
        self.segmenter, self.files, self.classes = ready_to_predict(segmenter, source.device), files, classes
        self.source, self._image_files = source, ImageFiles(source.reader.path)
        config = sized(config, segmenter, source.device)
        self.looks = LookPlan.of(config, segmenter.estimator, segmenter.scales)
        self.grid = BlockGrid(source.size, self.looks.block_side(config.block_size, segmenter.overview_downsample))
        self.config = config.model_copy(update={"block_size": self.grid.side})
        self.area, self.strict = area or Area(source.size), strict
        self.plan = self._plan()

    def run(
        self,
        session: Session = ALONE,
        *,
        overwrite: bool = False,
        resume: bool = False,
        on_pixels: Callable[[int], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Predict the image, as the process that leads, and write the results.

        Args:
            session: who helps, who is told, and who may stop it.
            overwrite: replace existing results, and discard the blocks of an interrupted run.
            resume: go on with the blocks of an interrupted run; results of the same run are left as they are.
            on_pixels: told the number of pixels done, those found done at first.

        Returns:
            What the summary file holds.

        Raises:
            OutputExistsError: when results, or the blocks of an interrupted run, exist and may not be replaced.
            OutputInUseError: when another process is at it.
            OutputWriteError: when the disk is full or the folder cannot be written.
            ConfigError: when there is something to resume that was made by another model, image or configuration; when
                results that are there are not whole.
            ImageReadError: when no block can be read, or one cannot and `strict` is set; when the image was changed
                meanwhile.
            DeviceMemoryError: when one patch at a time does not fit into the device.
            StoppedError: when asked to stop.
        """
        self.refuse_existing(overwrite=True)  # only names that are too long
        begun = resume and (self.files.store / "plan.json").exists()
        if resume and not begun and not overwrite and self.files.summary.exists():
            return self._done_already()
        if not begun:
            self.refuse_existing(overwrite)
        with (
            small_cache(),
            BlockStore.leading(
                self.files.store, self.plan, len(self.grid), resume=resume, overwrite=overwrite, tell=session.tell
            ) as store,
            self._image_noted(store),
        ):
            check_space(store, self.source.size, len(self.classes), self.config, session.tell)
            session.team.announce(session.number, self._word())
            return self._finish(store, session, on_pixels)

    def help(self, session: Session) -> None:
        """Work on the image's blocks beside the process that leads, until all are stored.

        Raises:
            ConfigError: when that process works on something else.
            FoveateError: as `run`, of this process's own blocks.
        """
        store = BlockStore.joining(self.files.store, self.plan, len(self.grid))
        if store is None:
            return
        with small_cache():
            session.complete(Worker(self._work(session), store), store, lambda: None)

    def do(self, numbers: Sequence[int], tell: Callable[[str], None]) -> None:
        """Predict numbered blocks of the image, which another process leads, where they are not stored yet.

        Raises:
            ConfigError: when that process works on something else.
            FoveateError: as `run`, of these blocks.
        """
        store = BlockStore.joining(self.files.store, self.plan, len(self.grid))
        if store is None:
            return
        worker = Worker(self._work(Session(tell=tell)), store)
        with small_cache(), closing(worker.run(n for n in numbers if not store.has(n))) as steps:
            for _ in steps:
                pass

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` before any work if a result is already there."""
        spec = self._spec(overwrite)
        for path in (*spec.paths().values(), self.files.preview, self.files.summary, *spec.others()):
            refuse_existing(path, overwrite)

    def _finish(self, store: BlockStore, session: Session, on_pixels: Callable[[int], None]) -> dict[str, Any]:
        cost, found = CostMeter(), store.finished()
        progress = _Progress(store, self.grid, on_pixels)
        progress()
        session.complete(Worker(self._work(session), store), store, progress)
        assembly = Assembly(store, self.grid, len(self.classes), lambda: session.check(store), self._image_files.check)
        # What stands there was made by this run too, or may be replaced: that was looked at before any work.
        spec = self._spec(overwrite=True, scratch=store.assembled)
        assembly.write(spec)
        if others := spec.others():
            session.tell(
                "removed what an earlier run had written and this one does not: "
                f"{', '.join(path.name for path in others)}"
            )
        for path in (*others, self.files.preview):
            remove_result(path)
        summary = {
            **summary_tree(assembly, cost, found, self._work(session), self.classes),
            "files": assembly.results,
            "image_files": self._image_files.tree(),
            "plan": self.plan,
        }
        write_text(self.files.summary, json.dumps(summary, indent=2) + "\n", overwrite=True)
        store.remove()
        return summary

    @contextmanager
    def _image_noted(self, store: BlockStore) -> Iterator[None]:
        """Go on only with blocks of the image as it is, and note how that is."""
        note = store.path / "image.json"
        if store.finished():
            self._image_files.expect(_read_json(note), f"the blocks in {store.path} were made")
        with self._image_files.noted(note):
            yield

    def _done_already(self) -> dict[str, Any]:
        """The summary of results that are there, if they are those of this run, whole and unchanged."""
        summary = _read_json(self.files.summary)
        if not isinstance(summary, dict):
            raise ConfigError(f"{self.files.summary} cannot be read; start again with --overwrite")
        changed = [line for _, line in differences(summary.get("plan"), json.loads(json.dumps(self.plan)))]
        if changed:
            raise ConfigError(
                f"the results in {self.files.summary} belong to another run: {'; '.join(changed)}. Start again with "
                "--overwrite, or choose another --out"
            )
        check_results(self.files.folder, [path.name for path in self._spec(False).paths().values()], summary)
        self._image_files.expect(summary.get("image_files"), f"{self.files.summary} was written")
        shutil.rmtree(self.files.store, ignore_errors=True)  # where the process was killed while it removed that
        return summary

    def _word(self) -> str:
        """What the other processes must know to do the same."""
        tree = self.config.tree()
        return json.dumps({name: tree[name] for name in (*SIZES, *SPENDING)})

    def _plan(self) -> ConfigTree:
        return {
            "foveate": __version__,
            "torch": torch.__version__,
            "device": self.source.device.type,
            "model": model_tree(self.segmenter),
            "image": image_tree(self.source),
            "classes": [[c.name, c.color] for c in self.classes],
            **({"overlapping": True} if self.segmenter.membership.overlapping else {}),
            "area": self.area.tree(),
            "inference": self.config.tree(),
        }

    def _work(self, session: Session) -> Work:
        return Work(
            self.segmenter, self.source, self.config, self.grid, len(self.classes), self.area, self.strict,
            session.tell, tilings_of(self._spec(overwrite=True)),
        )  # fmt: skip

    def _spec(self, overwrite: bool, scratch: Path | None = None) -> OutputSpec:
        return OutputSpec(
            folder=self.files.folder,
            stem=self.files.stem,
            size=self.source.size,
            classes=self.classes,
            overlapping=self.segmenter.membership.overlapping,
            georeference=self.source.reader.georeference,
            resolution=self.source.reader.resolution,
            stored_size=self.source.reader.stored_size,
            cell=self.segmenter.overview_downsample,
            fields_of_view=self.segmenter.scales.fields_of_view,
            passes=self.looks.map,
            outputs=self.config.outputs,
            format=self.config.format,
            polygons=self.config.polygons,
            overwrite=overwrite,
            scratch=scratch,
        )


class _Progress:
    """Tells how many pixels were finished, by whatever process, since it was asked last."""

    def __init__(self, store: BlockStore, grid: BlockGrid, on_pixels: Callable[[int], None]) -> None:
        self._store, self._grid, self._on_pixels = store, grid, on_pixels
        self._told: set[int] = set()

    def __call__(self) -> None:
        new = self._store.finished() - self._told
        self._told |= new
        if new:
            self._on_pixels(sum(self._grid[number].size.pixels for number in new))


def _read_json(path: Path) -> Any:
    """What a file holds; None where it cannot be read."""
    try:
        return read_json(path, ConfigError, "start again with --overwrite")
    except ConfigError:
        return None
