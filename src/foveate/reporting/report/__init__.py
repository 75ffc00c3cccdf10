"""`write_report`: everything there is to see about a run, on one page."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from foveate.data import SPLITS, Sample
from foveate.errors import ConfigError, FoveateError
from foveate.evaluation.maps import MapFiles
from foveate.files import refuse_existing
from foveate.geometry import IntArray
from foveate.reporting.passes import PassesFile, one_view_note
from foveate.reporting.report import charts, page, pictures
from foveate.reporting.report import state as run_state

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


def write_report(
    run: Path | str,
    out: Path | str | None = None,
    options: ReportOptions = ReportOptions(),
    *,
    say: Say = lambda _text: None,
    on_progress: Callable[[float], None] | None = None,
) -> page.Report:
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
    path = Path(out) if out else page.page_of(run)
    if options.split not in (None, *SPLITS):
        raise ConfigError(f"split {options.split!r}; allowed are {', '.join(SPLITS)}")
    refuse_existing(path, options.overwrite, [".html", ".htm"])
    gathered = _Gathered(
        run_state.RunState.of(run, options.overrides), page.FigureFolder(run / page.FOLDER / page.FIGURES), options
    )
    gathered.training()
    evaluation = gathered.evaluation(say, on_progress)
    if evaluation is not None:
        gathered.accuracy(evaluation)
        gathered.images(evaluation)
    gathered.over_time()
    page.write_page(path, "run.html", gathered.values(path), overwrite=options.overwrite)
    return page.Report(path, tuple(gathered.figures.files), tuple(gathered.missing))


@dataclass
class _Gathered:
    """The values of a page, gathered part by part; what goes wrong with one part is noted and leaves the others."""

    state: run_state.RunState
    figures: page.FigureFolder
    options: ReportOptions
    missing: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    @page.style()
    def training(self) -> None:
        """Curves."""
        state, foveation = self.state, self.state.config.foveation
        views = foveation.fields_of_view if foveation.has_policy else ()
        self._part("budget", "the curve of budgets", charts.budget_chart, state.run.tuned_file, self.figures)
        self.parts["charts"] = charts.training_charts(state.history, views, state.config.data.class_names, self.figures)
        if not state.history and not state.members:
            self.missing.append("There is no metrics.csv, so there are no curves.")
        if state.samples is None:
            self.missing.append(f"The data set is not where the configuration says: {state.data_problem}.")

    def evaluation(self, say: Say, on_progress: Callable[[float], None] | None) -> run_state.ShownEvaluation | None:
        """The evaluation that is there, or a new one; None where neither can be had."""
        found = self._part("evaluation", "the evaluation", self._found_or_made, say, on_progress)
        if found is not None and not found.up_to_date:
            self.missing.append(f"The evaluation {found.file} is older than the weights of the run.")
        return found

    @page.style()
    def accuracy(self, evaluation: run_state.ShownEvaluation) -> None:
        """Confusion matrix, the IoU by field of view, and whether nearly all passes use one."""
        if evaluation.maps is None:
            self.missing.append(
                "The evaluation has no maps, so there are no pictures, no confusion matrix and no IoU by field of "
                "view: run without --no-evaluate, or foveate evaluate --maps."
            )
            return
        data, foveation = self.state.config.data, self.state.config.foveation
        counts = self._guarded("the confusion matrix", self._counts, evaluation)
        if counts is not None and counts.sum():
            if not data.overlapping:  # each class is confused with none
                self.parts["confusion"] = charts.confusion_chart(counts.sum(axis=0), data.class_names, self.figures)
            every = charts.scale_rows(counts, foveation.fields_of_view, data.class_names)
            rows = [row for row in every if row.is_seen]
            if len(rows) > 1 or foveation.has_policy:
                chart = charts.scale_chart(rows, data.class_names, self.figures)
                self.parts["by_scale"] = {"rows": rows, "chart": chart}
        if foveation.has_policy:
            self._part("one_view", "the shares of the passes", self._one_view, evaluation)

    def images(self, evaluation: run_state.ShownEvaluation) -> None:
        """Pictures of the best, median and worst image, and the foveated rendering of one of them."""
        examples, renderings = [], []
        for rank, scores in pictures.ranked(evaluation.tree["images"]) if evaluation.maps is not None else []:
            name = scores["name"]
            one = self._guarded(f"the pictures of {name}", self._example, rank, scores, evaluation)
            if one is not None:
                examples.append(one)
                drawn = self._guarded(f"the foveated rendering of {name}", self._rendering, name, evaluation)
                renderings += [] if drawn is None else [(name, drawn)]
        self.parts["examples"] = examples
        if renderings:
            name, drawn = max(renderings, key=lambda item: item[1].variety)
            uris = {
                part: self.figures.picture(f"rendering-{part}", getattr(drawn, part), photo=part != "chosen")
                for part in ("plain", "foveated", "chosen")
            }
            self.parts["rendering"] = {**uris, "name": name, "window": drawn.window}

    def over_time(self) -> None:
        """The animation of the kept foveation maps."""
        state, foveation = self.state, self.state.config.foveation
        make, views = pictures.animate, foveation.fields_of_view
        animation = self._part("animation", "the foveation over training", make, state.maps, views, foveation.estimator)
        if animation is not None:
            self.figures.keep("foveation.gif", animation.gif)
            self.figures.keep("foveation-last.png", animation.last_frame)
        elif foveation.has_policy and not state.members and not state.maps:
            self.missing.append(
                "Training kept no maps of the fields of view. It needs validation images, and a run of this version."
            )

    def values(self, path: Path) -> dict[str, Any]:
        """What the template of a page at `path` asks for."""
        state, config, evaluation = self.state, self.state.config, self.parts.get("evaluation")
        views = config.foveation.fields_of_view
        cost = run_state.training_cost(state)
        if evaluation is not None:
            cost[f"Evaluation of {evaluation.split}"] = run_state.evaluation_cost(evaluation.tree)
        return {
            **dict.fromkeys(("budget", "evaluation", "confusion", "by_scale", "animation", "rendering", "one_view")),
            "examples": [], **self.parts, "cost": cost, "scales_differ": len(views) > 1,
            "overlapping": config.data.overlapping, "title": config.name, "state": state,
            "status": f"{run_state.headline(state)}. {state.status}", "missing": self.missing,
            "classes": config.data.classes, "setup": run_state.setup_facts(state), "config_text": config.to_yaml(),
            "best_miou": max((row["val/miou"] for row in state.history if row.get("val/miou", -1) >= 0), default=None),
            "members": [(folder.name, page.link_to(page.page_of(folder), path)) for folder in state.members],
            "legend": {"stops": page.view_colors(range(9)), "views": views},
        }  # fmt: skip

    def _guarded(self, what: str, make: Callable[..., Made], *values: Any) -> Made | None:
        try:
            return make(*values)
        except (FoveateError, OSError) as error:
            self.missing.append(f"{what[0].upper()}{what[1:]} could not be made: {error}")
            return None

    def _part(self, key: str, what: str, make: Callable[..., Made | None], *values: Any) -> Made | None:
        """As `_guarded`, kept for the page under a name."""
        self.parts[key] = made = self._guarded(what, make, *values)
        return made

    def _found_or_made(self, say: Say, on_progress: Callable[[float], None] | None) -> run_state.ShownEvaluation | None:
        state, options, folder = self.state, self.options, self.state.run.path / page.FOLDER
        split = options.split or state.default_split()
        if split is None:
            reason = "has neither validation nor test images" if state.samples else "is not there"
            self.missing.append(f"The data set {reason}, so nothing is evaluated.")
            return None
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
        config = self.state.config
        samples = (self._sample(image["name"], evaluation) for image in evaluation.tree["images"])
        views = config.foveation.fields_of_view
        first, *others = (charts.image_counts(sample, files, config.data, views) for sample, files in samples)
        return sum(others, first)

    def _one_view(self, evaluation: run_state.ShownEvaluation) -> str | None:
        """What to say where the policy puts nearly all passes at one field of view."""
        total: Counter[int] = Counter()
        for image in evaluation.tree["images"]:
            _, files = self._sample(image["name"], evaluation)
            total.update(PassesFile.read(files.passes).passes())
        return one_view_note(dict(sorted(total.items())))

    def _example(self, rank: str, scores: dict[str, Any], evaluation: run_state.ShownEvaluation) -> pictures.Example:
        return pictures.example(
            rank, scores, *self._sample(scores["name"], evaluation), self.state.config, self.figures
        )

    def _rendering(self, name: str, evaluation: run_state.ShownEvaluation) -> pictures.Rendering:
        foveation = self.state.config.foveation
        return pictures.render(
            *self._sample(name, evaluation), self.state.config.data, foveation.scales, foveation.overview_downsample
        )
