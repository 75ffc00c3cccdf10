"""`write_report`: everything there is to see about a run, on one page."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from foveate.data.manifest import Sample
from foveate.data.sections import SPLITS
from foveate.errors import ConfigError, FoveateError
from foveate.evaluation.maps import MapFiles
from foveate.files import refuse_existing
from foveate.reporting.passes import PassesFile, one_view_note
from foveate.reporting.report import charts
from foveate.reporting.report import state as run_state
from foveate.reporting.report.page import FigureFolder, Report, data_uri, link_to, view_colors, write_page
from foveate.reporting.report.pictures import Example, Rendering, chosen_picture, example, ranked, render
from foveate.reporting.report.training import animate, training_charts
from foveate.types import IntArray

FOLDER, PAGE, FIGURES = "report", "index.html", "figures"
Say = Callable[[str], None]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report is made from.

    Attributes:
        split: what is shown; None takes validation images, or test images where there are none.
        evaluate: evaluate the split where no evaluation of the present weights with maps is there.
        device, processes: for that evaluation, see `foveate.runs.evaluate.evaluate_run`.
        overrides: `key.subkey=value` changes to the configuration; with some, the split is always evaluated.
        overwrite: replace an existing page.
    """

    split: str | None = None
    evaluate: bool = True
    device: torch.device | str = "cpu"
    processes: int = 1
    overwrite: bool = False
    overrides: tuple[str, ...] = ()


def page_of(run: Path) -> Path:
    """Where the report of a run, or of a comparison, is by default."""
    return run / FOLDER / PAGE


def write_report(
    run: Path | str,
    out: Path | None = None,
    options: ReportOptions = ReportOptions(),
    *,
    say: Say = lambda _text: None,
    on_progress: Callable[[float], None] | None = None,
) -> Report:
    """Write the report of a run: trained, training or stopped. What cannot be shown is named in it.

    Figures go to RUN/report/figures as PNG and SVG, and an evaluation that is made for the report to
    RUN/report/evaluation; files of the same names from an earlier report are replaced.

    Args:
        run: its folder.
        out: the page; RUN/report/index.html when None.
        options: what it is made from.
        say: told in a sentence what takes long.
        on_progress: told how much more of the evaluation is done, in shares that add up to 1.

    Raises:
        ConfigError: when this is no run, or there is no such split.
        OutputExistsError: when the page exists and may not be replaced.
        OutputWriteError: when it cannot be written.
    """
    run = Path(run)
    path = out or page_of(run)
    if options.split not in (None, *SPLITS):
        raise ConfigError(f"split {options.split!r}; allowed are {', '.join(SPLITS)}")
    refuse_existing(path, options.overwrite)
    gathered = _Gathered(run_state.RunState.of(run, options.overrides), FigureFolder(run / FOLDER / FIGURES), options)
    gathered.training()
    evaluation = gathered.evaluation(say, on_progress)
    if evaluation is not None:
        gathered.accuracy(evaluation)
        gathered.looks(evaluation)
    gathered.over_time()
    write_page(path, "run.html", gathered.values(path), overwrite=options.overwrite)
    return Report(path, tuple(gathered.figures.files), tuple(gathered.missing))


@dataclass
class _Gathered:
    """The values of a page, gathered part by part; what goes wrong with one part is noted and leaves the others."""

    state: run_state.RunState
    figures: FigureFolder
    options: ReportOptions
    missing: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    def training(self) -> None:
        """Curves."""
        config = self.state.config
        views = self._views if config.foveation.has_policy else ()
        make = partial(charts.budget_chart, self.state.run.tuned_file, self.figures)
        self.parts["budget"] = self._guarded("the curve of budgets", make)
        self.parts["charts"] = training_charts(self.state.history, views, config.data.class_names, self.figures)
        if not self.state.history and not self.state.members:
            self.missing.append("There is no metrics.csv, so there are no curves.")
        if self.state.samples is None:
            self.missing.append(f"The data set is not where the configuration says: {self.state.data_problem}.")

    def evaluation(self, say: Say, on_progress: Callable[[float], None] | None) -> run_state.ShownEvaluation | None:
        """The evaluation that is there, or a new one; None where neither can be had."""
        split = self.options.split or self.state.default_split()
        found = self._guarded("the evaluation", lambda: self._found_or_made(split, say, on_progress))
        if found is not None:
            self.parts |= {"evaluation": found}
            if not found.up_to_date:
                self.missing.append(f"The evaluation {found.file} is older than the weights of the run.")
        return found

    def accuracy(self, evaluation: run_state.ShownEvaluation) -> None:
        """Confusion matrix, the IoU by field of view, and whether nearly all passes use one."""
        if evaluation.maps is None:
            self.missing.append(
                "The evaluation has no maps, so there are no pictures, no confusion matrix and no IoU by field of "
                "view: run without --no-evaluate, or foveate evaluate --maps."
            )
            return
        counts = self._guarded("the confusion matrix", lambda: self._counts(evaluation))
        if counts is not None and counts.sum():
            names = self.state.config.data.class_names
            if not self.state.config.data.overlapping:  # each class is confused with none
                self.parts["confusion"] = charts.confusion_chart(counts.sum(axis=0), names, self.figures)
            self._by_scale(counts, names)
        self.parts["one_view"] = self._guarded("the shares of the passes", lambda: self._one_view(evaluation))

    def looks(self, evaluation: run_state.ShownEvaluation) -> None:
        """Pictures of the best, median and worst image, and the foveated rendering of one of them."""
        renderings: list[tuple[str, Rendering]] = []
        for rank, scores in ranked(evaluation.tree["images"]) if evaluation.maps is not None else []:
            name = scores["name"]
            one = self._guarded(f"the pictures of {name}", partial(self._example, rank, scores, evaluation))
            if one is not None:
                self.parts.setdefault("examples", []).append(one)
                drawn = self._guarded(f"the foveated rendering of {name}", partial(self._render, name, evaluation))
                renderings += [(name, drawn)] if drawn is not None else []
        if renderings:
            self._show(*max(renderings, key=lambda item: item[1].variety))

    def over_time(self) -> None:
        """The animation of the kept foveation maps."""
        estimator = self.state.config.foveation.estimator
        make = partial(animate, self.state.maps, self._views, estimator)
        animation = self._guarded("the foveation over training", make)
        if animation is not None:
            self.figures.keep("foveation.gif", animation.gif)
            self.figures.keep("foveation-last.png", animation.last_frame)
            self.parts["animation"] = {
                "strip": data_uri(animation.strip, "image/png"), "frames": animation.frames,
                "steps": animation.steps, "shape": animation.shape, "seconds": animation.seconds,
            }  # fmt: skip
        elif self.state.config.foveation.has_policy and not self.state.members and not self.state.maps:
            self.missing.append(
                "Training kept no maps of the fields of view. It needs validation images, and a run of this version."
            )

    def values(self, path: Path) -> dict[str, Any]:
        """What the template of a page at `path` asks for."""
        state, config = self.state, self.state.config
        empty = dict.fromkeys(("evaluation", "confusion", "by_scale", "animation", "rendering", "one_view"))
        return {
            **empty, "cost": self._cost(), "examples": [], "scales_differ": len(self._views) > 1,
            "overlapping": self.state.config.data.overlapping, **self.parts,
            "title": config.name, "state": state, "status": f"{run_state.headline(state)}. {state.status}",
            "missing": self.missing,
            "classes": config.data.classes, "setup": run_state.setup_facts(state), "config_text": config.to_yaml(),
            "best_miou": max((row["val/miou"] for row in state.history if row.get("val/miou", -1) >= 0), default=None),
            "members": [(folder.name, link_to(page_of(folder), path)) for folder in state.members],
            "legend": {"stops": view_colors(range(9)), "views": self._views},
        }  # fmt: skip

    @property
    def _views(self) -> tuple[int, ...]:
        return self.state.config.foveation.fields_of_view

    def _cost(self) -> dict[str, run_state.Facts]:
        found = self.parts.get("evaluation")
        evaluated = {} if found is None else {f"Evaluation of {found.split}": run_state.evaluation_cost(found.tree)}
        return {**run_state.training_cost(self.state), **evaluated}

    def _guarded(self, what: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except (FoveateError, OSError) as error:
            self.missing.append(f"{what[0].upper()}{what[1:]} could not be made: {error}")
            return None

    def _found_or_made(
        self, split: str | None, say: Say, on_progress: Callable[[float], None] | None
    ) -> run_state.ShownEvaluation | None:
        state, folder = self.state, self.state.run.path / FOLDER
        if split is None:
            reason = "has neither validation nor test images" if state.samples else "is not there"
            self.missing.append(f"The data set {reason}, so nothing is evaluated.")
            return None
        options = self.options
        anew = bool(options.overrides) and options.evaluate  # an evaluation that is there was made without them
        found = None if anew else run_state.find_evaluation(state, split, folder)
        if found is not None and found.up_to_date and found.maps is not None:
            return found
        if options.evaluate and state.can_predict:
            there = "of these settings" if anew else "of the present weights with maps"
            say(f"no evaluation {there} exists; evaluating {split} for the report")
            how = {"device": options.device, "processes": options.processes, "on_progress": on_progress}
            return run_state.make_evaluation(state, split, folder, list(options.overrides), **how)
        if found is None:
            reason = "was not asked for" if state.can_predict else "needs a checkpoint, and none is there"
            self.missing.append(f"There is no evaluation of {split}, and making one {reason}.")
        return found

    def _sample(self, name: str, evaluation: run_state.ShownEvaluation) -> tuple[Sample, MapFiles]:
        samples = (self.state.samples or {}).get(evaluation.split, [])
        sample = next((one for one in samples if one.name == name), None)
        if sample is None or evaluation.maps is None:
            raise FoveateError(f"the image {name} of the evaluation is not in the split {evaluation.split} now")
        return sample, MapFiles.in_folder(evaluation.maps, name)

    def _counts(self, evaluation: run_state.ShownEvaluation) -> IntArray:
        config, names = self.state.config, [image["name"] for image in evaluation.tree["images"]]
        samples = (self._sample(name, evaluation) for name in names)
        first, *others = (charts.image_counts(sample, files, config.data, self._views) for sample, files in samples)
        return sum(others, first)

    def _by_scale(self, counts: IntArray, names: list[str]) -> None:
        rows: list[charts.ScaleRow] = [row for row in charts.scale_rows(counts, self._views, names) if row.is_seen]
        if len(rows) > 1 or self.state.config.foveation.has_policy:
            self.parts["by_scale"] = {"rows": rows, "chart": charts.scale_chart(rows, names, self.figures)}

    def _one_view(self, evaluation: run_state.ShownEvaluation) -> str | None:
        """What to say where the policy puts nearly all passes at one field of view."""
        if not self.state.config.foveation.has_policy:
            return None
        total: Counter[int] = Counter()
        for image in evaluation.tree["images"]:
            _, files = self._sample(image["name"], evaluation)
            total.update(PassesFile.read(files.passes).passes())
        return one_view_note(dict(sorted(total.items())))

    def _example(self, rank: str, scores: dict[str, Any], evaluation: run_state.ShownEvaluation) -> Example:
        sample, files = self._sample(scores["name"], evaluation)
        return example(rank, scores, sample, files, self.state.config, self.figures)

    def _render(self, name: str, evaluation: run_state.ShownEvaluation) -> Rendering:
        sample, files = self._sample(name, evaluation)
        foveation = self.state.config.foveation
        return render(sample, files, self.state.config.data, foveation.scales, foveation.overview_downsample)

    def _show(self, name: str, drawn: Rendering) -> None:
        pictures = {"plain": drawn.plain, "foveated": drawn.foveated}
        uris = {part: self.figures.picture(f"rendering-{part}", p, photo=True) for part, p in pictures.items()}
        cell = self.state.config.foveation.overview_downsample
        chosen = chosen_picture(drawn.chosen, self._views, cell, drawn.window.size)
        uris["chosen"] = self.figures.picture("rendering-chosen", chosen)
        self.parts["rendering"] = {**uris, "name": name, "window": drawn.window}
