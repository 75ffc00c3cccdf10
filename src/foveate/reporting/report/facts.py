"""What was trained on what, and what it cost, as pairs of a name and a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foveate.foveation.estimators import name_of
from foveate.reporting.report.page import number
from foveate.reporting.report.state import RunState
from foveate.runs.config import RunConfig

Facts = list[tuple[str, str]]
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def setup_facts(state: RunState) -> dict[str, Facts]:
    """Groups of facts: data, method, training."""
    return {"Data": _data(state), "Method": _method(state.config), "Training": _training(state.config)}


def headline(state: RunState) -> str:
    """What was trained on what, in a line."""
    config = state.config
    counts = ", ".join(f"{count} {_SPLITS[split]}" for split, count in state.split_counts())
    name = name_of(config.foveation.estimator)
    return f"{name}, {_network(config)}, on {_files(config)}" + (f" ({counts} images)" if counts else "")


def evaluation_cost(tree: Mapping[str, Any]) -> Facts:
    """What an evaluation cost, from what `foveate evaluate` wrote."""
    facts = [
        ("images", number(len(tree["images"]))),
        ("megapixels predicted", number(tree["megapixels"], 1)),
        ("passes through the network", number(tree["passes"])),
        ("passes per megapixel", number(tree["passes_per_megapixel"])),
        ("seconds", number(tree["seconds"], 1)),
        ("megapixels per second", number(tree["megapixels_per_second"], 2)),
        ("peak memory", f"{number(tree['peak_memory_mb'])} MiB"),
    ]
    device = tree.get("peak_device_memory_mb")
    return facts if device is None else [*facts, ("peak memory of the accelerator", f"{number(device)} MiB")]


def training_cost(state: RunState) -> dict[str, Facts]:
    """What the training cost so far; nothing of an ensemble, which is not trained."""
    if state.members:
        return {}
    done = state.steps_done
    passes = ("passes through the network", number(training_passes(state.config, done)))
    return {"Training": [("steps", number(done)), passes, *_time_and_memory(state.training_cost)]}


def _time_and_memory(cost: Mapping[str, float]) -> Facts:
    """Of a training that is done; nothing of one that goes on, or of an earlier version's."""
    if "seconds" not in cost:
        return []
    return [
        ("seconds since the last start", number(cost["seconds"], 1)),
        ("peak memory", f"{number(cost['peak_memory_mb'])} MiB"),
    ]


def training_passes(config: RunConfig, steps: int) -> int:
    """Patches that pass through the network in so many steps."""
    reading = config.foveation.estimator.reads(len(config.foveation.fields_of_view))
    return steps * config.training.locations_per_step * reading.passes


def _data(state: RunState) -> Facts:
    data = state.config.data
    counts = ", ".join(f"{count} {_SPLITS[split]}" for split, count in state.split_counts())
    return [
        ("files", _files(state.config)),
        ("images", counts or "not found"),
        ("classes", ", ".join(data.class_names)),
        ("channels", str(data.in_channels)),
    ]


def _method(config: RunConfig) -> Facts:
    foveation = config.foveation
    options = {key: value for key, value in foveation.estimator.tree().items() if key != "name"}
    told = ", ".join(f"{key} {value}" for key, value in options.items())
    return [
        ("estimator", f"{foveation.estimator.tree()['name']}" + (f" ({told})" if told else "")),
        ("fields of view", ", ".join(map(str, foveation.fields_of_view)) + " px"),
        ("patch", f"{foveation.patch_size} px{_surround(foveation.surround)}"),
        ("overview", f"1/{foveation.overview_downsample}"),
        ("network", _network(config)),
        ("alignment", foveation.alignment),
    ]


def _surround(surround: float | None) -> str:
    return "" if surround is None else f", with a surround {surround:g} times as wide as the field of view"


def _network(config: RunConfig) -> str:
    values = config.network.tree()
    parts = [str(values[key]) for key in ("architecture", "encoder") if values.get(key)]
    return " with ".join(parts) or "your own network"


def _files(config: RunConfig) -> str:
    """The data set, as the configuration names it."""
    source = config.data.folder if config.data.folder is not None else config.data.manifest
    return str(source) if not isinstance(source, dict) else ", ".join(str(path) for path in source.values())


def _training(config: RunConfig) -> Facts:
    training = config.training
    losses = {name: weight for name, weight in training.losses.tree().items() if weight and name in _LOSSES}
    return [
        ("steps", number(training.steps)),
        ("locations a step", f"{training.locations_per_step} from {training.images_per_step} images"),
        ("optimiser", f"{training.optimizer}, learning rate {training.learning_rate:g}, {training.schedule}"),
        ("losses", ", ".join(f"{name.replace('_', ' ')} {weight:g}" for name, weight in losses.items())),
        ("seed", str(training.seed)),
    ]


_LOSSES = ("cross_entropy", "dice", "focal")
