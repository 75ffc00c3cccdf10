"""`foveate.load`, `Run`, `foveate.predict` and `foveate.evaluate`: what a trained run does."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from torch import Tensor

from foveate import evaluation, inference, runs
from foveate.data.area import Roi
from foveate.devices import device_named
from foveate.errors import ConfigError
from foveate.reporting.previews import PredictionResult, predict_shown
from foveate.runs.predict_array import ArrayPrediction, predict_array
from foveate.texts import listed, metres

AnyPath = str | Path
AnyArray = np.ndarray[Any, Any] | Tensor


@dataclass(frozen=True, slots=True)
class Run(runs.TrainedRun):
    """A trained run, ready to segment images: `run = foveate.load("runs/mine")`.

    Attributes:
        config: its configuration.
        segmenter: the network with its looks, a `torch.nn.Module` in eval mode on `device`.
        device: where it works.
        path: its folder; None for one that was not loaded from a folder.
        overrides: the changes to its configuration that it was loaded with.
    """

    @overload
    def predict(
        self,
        image: AnyPath,
        out: AnyPath,
        *,
        budget: float | str | None = None,
        outputs: Sequence[str] | None = None,
        roi: AnyPath | None = None,
        memory: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        strict: bool = False,
        overrides: Sequence[str] = (),
        session: inference.session.Session | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> PredictionResult: ...

    @overload
    def predict(
        self,
        image: AnyArray,
        *,
        budget: float | str | None = None,
        overrides: Sequence[str] = (),
        axes: str | None = None,
        scale: float | None = None,
        pixel_size: str | None = None,
    ) -> ArrayPrediction: ...

    def predict(self, image: AnyPath | AnyArray, out: AnyPath | None = None, **options: Any) -> Any:
        """Segment an image file of any size, or an image in memory.

        See `foveate.predict`, which takes the run as its first argument.
        """
        outputs = options.pop("outputs", None)
        settled = self._settled(options.pop("budget", None), outputs, options.pop("overrides", ()))
        if isinstance(image, np.ndarray | Tensor):
            if out is not None:
                raise ConfigError("an array is segmented in memory and nothing is written; leave out the folder")
            _check_options(options if outputs is None else {**options, "outputs": outputs}, "an array")
            return predict_array(settled, image, **options)
        if not isinstance(image, str | Path):
            kind = type(image).__name__
            raise ConfigError(f"the image is of the type {kind}; give a path, or an array such as np.asarray(image)")
        if out is None:
            raise ConfigError(f"give a folder for the results of {image}, as in run.predict({str(image)!r}, 'out')")
        _check_options(options, "a file")
        return _predict_file(settled, image, out, **options)

    def evaluate(self, split: str = "val", *, hausdorff: bool = False) -> "evaluation.Evaluation":
        """Predict and score every image of a split of the run's data: see `foveate.evaluate`."""
        return evaluate(self, split, hausdorff=hausdorff)

    def tune(self, split: str = "val", *, budgets: Sequence[float] | None = None, overwrite: bool = False) -> Self:
        """Choose on labelled images how the run spends each budget of passes, and note it in the run's folder.

        Args:
            split: whose images are used; never those whose scores are reported.
            budgets: as shares of what one fixed field of view costs, one pass per target; from 0.125 to 4 when None.
            overwrite: replace an earlier choice.

        Returns:
            The run, which predicts and evaluates as was chosen: `run = foveate.train("data/mine").tune()`.

        Raises:
            ConfigError: when the run has no folder, or no budget pays for any way of looking.
            OutputExistsError: when the run is tuned already and `overwrite` is false.
        """
        if self.path is None:
            raise ConfigError("only a run of a folder can be tuned, see foveate.load")
        runs.tune.tune(self.path, split=split, budgets=budgets or runs.tune.BUDGETS, overwrite=overwrite, loaded=self)
        return self.configured()

    def export(
        self, path: AnyPath, *, view: int | None = None, pixel_size: str | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Write the network of each look as ONNX (.onnx) or as a program of torch.export (.pt2).

        The network takes patches (N, C, P, P) of raw values divided by their range (255 for 8 bits) and returns
        probabilities (N, classes, P, P). The file is compared with torch before it is kept.

        Args:
            path: ends in .onnx or .pt2; of several looks the field of view is added to the name.
            view: the one field of view to write; all when None.
            pixel_size: of the images, such as "0.3 m", for the QGIS plug-in Deepness.
            overwrite: replace what is there.

        Returns:
            The files.

        Raises:
            NetworkError: when the network cannot be exported, or the export's output differs from torch's.
        """
        size = None if pixel_size is None else metres(pixel_size)
        done = runs.share.export(self, Path(path), view=view, pixel_size=size, overwrite=overwrite)
        return [one.path for one in done]

    def _settled(self, budget: float | str | None, outputs: Sequence[str] | None, overrides: Sequence[str]) -> Self:
        """This run with other settings of inference."""
        changes = listed(overrides, "overrides")
        if budget is not None:
            changes += [f"inference.budget={budget}", "inference.planner=pyramid"]
        if outputs is not None:
            changes.append(f"inference.outputs=[{','.join(listed(outputs, 'outputs'))}]")
        other = [change for change in changes if not change.startswith("inference.")]
        if other:
            raise ConfigError(
                f"{', '.join(other)} cannot be changed when predicting, only settings that begin with "
                f"inference. can; give it to foveate.load(..., overrides=[...])"
            )
        return self.configured(changes) if changes else self


def load(run: AnyPath, *, checkpoint: str = "best", device: str = "auto", overrides: Sequence[str] = ()) -> Run:
    """Load a trained run.

    Args:
        run: the folder that `foveate train` or `foveate.train` made, or "hf://user/name".
        checkpoint: "best" (highest validation mIoU) or "last".
        device: "auto", "cpu", "0" (a GPU by its number), "mps".
        overrides: `key.subkey=value` changes to its configuration, such as `inference.overlap=0.5`.

    Returns:
        The run: `load("runs/mine").predict("huge.tif", "out")`, or `.predict(array)`.

    Raises:
        ConfigError: when this is no run, or an override is not allowed.
        CheckpointError: when the checkpoint is missing or damaged.
    """
    return _as_run(
        runs.RunFolder(_folder_of(run)).load(checkpoint, device_named(device), listed(overrides, "overrides"))
    )


@overload
def predict(run: AnyPath | runs.TrainedRun, image: AnyPath, out: AnyPath, **options: Any) -> PredictionResult: ...


@overload
def predict(run: AnyPath | runs.TrainedRun, image: AnyArray, **options: Any) -> ArrayPrediction: ...


def predict(
    run: AnyPath | runs.TrainedRun,
    image: AnyPath | AnyArray,
    out: AnyPath | None = None,
    *,
    budget: float | str | None = None,
    outputs: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    **options: Any,
) -> PredictionResult | ArrayPrediction:
    """Segment an image file of any size into files, or an image in memory into arrays.

    `predict(run, "huge.tif", "out")` writes the class map and the other outputs into the folder "out". Its memory does
    not grow with the image. `predict(run, array)` returns classes (H, W) and probabilities (classes, H, W);
    it normalises the array as in training.

    Args:
        run: a run from `foveate.load`, or its folder.
        image: a file or URL; or an array or tensor (H, W), (H, W, C) or (C, H, W) of raw values.
        out: for a file, the folder for the results, which are named after the image.
        budget: most forward passes per megapixel; "fixed", "all", or as many as the network makes in "20 s".
        outputs: for a file, the outputs to write: "classes", "foveation", "passes", "confidence", "entropy",
            "probabilities", "polygons".
        overrides: further settings of inference, such as `inference.overlap=0.5`.
        options: for a file: `roi` (GeoJSON file of the region to segment), `memory` (such as "4GB"), `resume`,
            `overwrite`, `strict`, `session`, `on_progress` (called with each share of the work done). For an array:
            `axes` ("HW", "HWC", "CHW"), `scale` (divides the values), `pixel_size` (such as "0.5 um").

    Returns:
        For a file, a `PredictionResult`: a dictionary of cost and class shares with the files' paths and a method
        `plot`. For an array, a named tuple (classes, probabilities).

    Raises:
        ImageReadError, UnsupportedImageError: when the image is missing, damaged or of no known format.
        DatasetError: when its bands or values do not fit the run.
        OutputExistsError: when results exist and may not be replaced.
        ConfigError: when an option is not allowed.
    """
    ready = run if isinstance(run, Run) else _as_run(run) if isinstance(run, runs.TrainedRun) else load(run)
    call: Any = ready.predict
    result: PredictionResult | ArrayPrediction = call(
        image, out, budget=budget, outputs=outputs, overrides=overrides, **options
    )
    return result


def evaluate(
    run: AnyPath | runs.TrainedRun, split: str = "val", *, hausdorff: bool = False, overrides: Sequence[str] = ()
) -> "evaluation.Evaluation":
    """Predict and score every image of a split, whole.

    Args:
        run: a run from `foveate.load`, or its folder.
        split: "train", "val" or "test".
        hausdorff: measure the 95 % Hausdorff distance of every class too (extra `metrics`).
        overrides: of a folder, `key.subkey=value` changes to the configuration.

    Returns:
        Scores and cost; `.tree()` gives plain values, and a notebook shows a table.

    Raises:
        DatasetError: when the split holds no labelled image.
    """
    # Scores need packages that predictions do not.
    ready = run if isinstance(run, runs.TrainedRun) else load(run, overrides=overrides)
    return runs.evaluate_split(ready, split, runs.EvaluationOptions(hausdorff))


def push(run: AnyPath, name: str, *, checkpoint: str = "best", private: bool = False) -> str:
    """Upload a trained run to the Hugging Face Hub, from which `load("hf://user/name")` gets it.

    This uploads the weights (safetensors), the configuration without paths of this computer, the tuned settings, and
    a model card with classes, looks and scores.

    Args:
        run: its folder.
        name: "user/name"; created if it does not exist.
        checkpoint: "best" or "last".
        private: make it private.

    Returns:
        The address of the model.

    Raises:
        FoveateError: when the name is not valid, or the hub refuses.
    """
    return runs.share.push(load(run, checkpoint=checkpoint, device="cpu"), name, private=private)


def _folder_of(run: AnyPath) -> Path:
    """The folder of a run, downloaded where it is on the hub; `Path` takes one slash of "hf://" away."""
    text = str(run)
    if not text.startswith("hf:/"):
        return Path(run)
    return runs.share.fetch(runs.share.SCHEME + text.removeprefix("hf:").lstrip("/"))


def _as_run(trained: runs.TrainedRun) -> Run:
    return Run(**{one.name: getattr(trained, one.name) for one in fields(runs.TrainedRun)})


_OPTIONS = {
    "an array": ("axes", "scale", "pixel_size"),
    "a file": ("outputs", "roi", "memory", "resume", "overwrite", "strict", "session", "on_progress"),
}


def _check_options(given: Iterable[str], what: str) -> None:
    for name in sorted(set(given) - set(_OPTIONS[what])):
        other = next((f"an option for {one}" for one, names in _OPTIONS.items() if name in names), "no option")
        raise ConfigError(f"{name} is {other}; for {what} there are budget, overrides, {', '.join(_OPTIONS[what])}")


def _predict_file(
    run: Run,
    image: AnyPath,
    out: AnyPath,
    *,
    roi: AnyPath | None = None,
    memory: str | None = None,
    session: inference.session.Session | None = None,
    **options: Any,
) -> PredictionResult:
    session = session or inference.session.Session()
    session = session if memory is None else replace(session, memory=inference.memory.parse_memory(memory))
    area = roi if roi is None or isinstance(roi, Roi) else Roi(Path(roi))
    return predict_shown(run, image, out, roi=area, session=session, **options)
