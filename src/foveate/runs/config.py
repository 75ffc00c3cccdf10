"""The configuration of a whole run: every section, from one YAML file and overrides; lengths become pixels."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import model_validator

from foveate.config_base import ABSENT, ConfigTree, Section, read_yaml, value_at, with_overrides
from foveate.data.config import DataConfig
from foveate.errors import ConfigError, NetworkError, Note
from foveate.foveation import config as names
from foveate.foveation.estimators import Cascade, Ensemble
from foveate.geometry import IGNORE
from foveate.inference.config import InferenceConfig
from foveate.networks.config import NetworkConfig
from foveate.patches.scales import middle_side
from foveate.training.config import TrainingConfig

# Keys of earlier versions whose feature is gone, with the only value that means the same today.
_REMOVED: dict[str, Any] = {
    "data.cache_mb": 512,
    "data.ignore_index": IGNORE,
    "foveation.policy.dilations": [1, 1, 1],
    "foveation.policy.encoder": None,
    "foveation.policy.weights": "imagenet",
    "foveation.policy.hidden": None,
    "foveation.policy.normalisation": "batch",
    "foveation.estimator.regress": 0,
    "foveation.estimator.features": None,
    "foveation.estimator.sharp": 0.75,
    "inference.glass": None,
    "inference.keep": 0.5,
    "inference.polygons.coordinates": "auto",
    "inference.stitching": "average",
    "training.log_every": 10,
    "training.losses.auxiliary": 0.4,
    "training.losses.focal_gamma": 2,
    "training.losses.ohem": 0,
    "training.losses.ohem_keep": 0.25,
    "training.momentum": 0.9,
    "training.policy_entropy": 0,
}
# The same, of some estimators only.
_OF_GUMBEL = {"foveation.estimator.tau": 1, "foveation.estimator.sample": False}
_REMOVED_OF: dict[str, dict[str, Any]] = {
    "coarse_first": {"foveation.estimator.own_window": 1, "foveation.estimator.narrowest": None},
    "glnet": {"foveation.estimator.own_window": 1},
    "gumbel": _OF_GUMBEL,
    "gumbel_soft": _OF_GUMBEL,
}
# Those that change no weight and no prediction: another value is left out, with a warning.
_WITHOUT_EFFECT = {"data.cache_mb", "training.log_every"}
# What says the same as such a key, where something does.
_INSTEAD = {
    "data.ignore_index": f"masks have {IGNORE} for it, or data.label_map={{0: {IGNORE}}} maps their value",
    "inference.glass": "what is left out is nodata, and inference.tissue=false predicts it. Remove the key",
    "inference.polygons.coordinates": "`foveate polygons` writes those of a class map in other ones. Remove the key",
    "inference.keep": "inference.looks gives the share used of each field of view: [[256, 0.75], [512, 1]]",
}


def resolve_lengths(values: ConfigTree) -> ConfigTree:
    """A copy of a run's configuration whose fields of view are pixels of `data.pixel_size`.

    Without `data.pixel_size` it becomes the narrowest field of view over the patch size, or over the side of the middle
    of a patch with a surround. Unchanged where no field of view is a length.

    Raises:
        ConfigError: when pixels and lengths are mixed, or one is no length.
    """
    foveation, data = values.get("foveation"), values.get("data")
    if not isinstance(foveation, dict) or not isinstance(data, dict):
        return values
    views, patch = foveation.get("fields_of_view"), foveation.get("patch_size")
    if not isinstance(views, list | tuple) or not any(map(names.is_physical, views)) or not isinstance(patch, int):
        return values
    if patch < 1:
        return values  # which is then found to be wrong
    size = data.get("pixel_size") or names.pixel_size_of(views, middle_side(patch, foveation.get("surround")))
    pixels = list(names.in_pixels(views, str(size)))
    return {**values, "foveation": {**foveation, "fields_of_view": pixels}, "data": {**data, "pixel_size": size}}


class RunConfig(Section):
    """All settings of a run.

    Attributes:
        name: name of the run. Its default folder is `runs/<name>`.
        members: for an ensemble: the run folders of its fixed models, narrowest first, relative to the folder of the
            ensemble. The default is members/fixed_1 and so on.
        data: images, labels, classes, sampling, augmentation.
        foveation: patch size, fields of view, overview, policy, estimator.
        network: the segmentation network.
        training: optimiser, schedule, losses, steps.
        inference: blocks, overlap, blending.
    """

    name: str = "run"
    members: tuple[Path, ...] | None = None
    data: DataConfig
    foveation: names.FoveationConfig
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    @property
    def is_ensemble(self) -> bool:
        """Whether this is made of other trained runs instead of being trained itself."""
        return isinstance(self.foveation.estimator, Ensemble)

    @model_validator(mode="before")
    @classmethod
    def _in_todays_words(cls, values: Any) -> Any:
        for translated in (_with_views, resolve_lengths, without_removed, without_method):
            values = translated(values) if isinstance(values, dict) else values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scales = len(self.foveation.fields_of_view)
        if self.members is not None and (not self.is_ensemble or len(self.members) != scales):
            raise ValueError(f"members is for the estimator ensemble only: one run for each of {scales} fields of view")
        if self.inference.tta is not None and isinstance(self.foveation.estimator, Cascade):
            raise ValueError("inference.tta does not work with cascades: a closer look has one wider look as context")
        return self

    @classmethod
    def load(cls, path: Path | str, overrides: list[str] | None = None, estimator: str | None = None) -> Self:
        """Read a configuration file and apply `key.subkey=value` overrides.

        Args:
            path: a YAML file.
            overrides: changes to it.
            estimator: name of another one than the file's.

        Raises:
            ConfigError: when the file is missing or a key or value is not allowed.
        """
        return cls.parse(_overridden(read_yaml(Path(path)), overrides or [], estimator), source=str(path))

    def changed(self, overrides: Sequence[str], estimator: str | None = None) -> Self:
        """This configuration with `key.subkey=value` overrides, and with another estimator where one is named."""
        if not overrides and estimator is None:
            return self
        return self.parse(_overridden(self.tree(), list(overrides), estimator), source=self.name)

    def check_files(self) -> None:
        """Refuse at once, before anything slow is loaded, what is not there: the data, or a file of weights.

        Raises:
            DatasetError: when a folder or list of the data set is missing.
            NetworkError: when a file of weights is missing.
        """
        self.data.check_there()
        weights = self.network.weights if self.network.factory is None else None
        if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
            raise NetworkError(f"no encoder weights at {weights}")

    @classmethod
    def completed(cls, values: ConfigTree) -> ConfigTree:
        """A resolved configuration of an earlier version, with the keys that were added since at their defaults."""
        return cls.parse(values, source="the saved configuration").tree()

    def to_yaml(self) -> str:
        """The resolved configuration; `load` reads it back to the same."""
        return yaml.safe_dump(self.tree(), sort_keys=False, allow_unicode=True)


def _overridden(values: ConfigTree, overrides: list[str], estimator: str | None) -> ConfigTree:
    """The values with overrides, and with the estimator that is named, here or by the last `foveation.estimator=NAME`.

    Another one drops the settings of the estimator before it, so those that are given for its own come after it.
    """
    for text in overrides:
        if text.startswith("method="):
            name = names.name_today(text.partition("=")[2])
            raise ConfigError(f"{text} is now called foveation.estimator={name}; see CHANGELOG.md")
    named = [text for text in overrides if re.fullmatch(r"foveation\.estimator=(?!(null|none|~)$)\w+", text)]
    if estimator is None and named:
        estimator = named[-1].partition("=")[2]
    if estimator is None:
        return with_overrides(values, overrides)
    own = [text for text in overrides if text.startswith("foveation.estimator.")]
    values = with_overrides(values, [text for text in overrides if text not in (*own, *named)])
    foveation = values.get("foveation")
    foveation = names.looks_as_views(foveation) if isinstance(foveation, dict) else {}
    return with_overrides({**without_method(values), "foveation": names.with_estimator(foveation, estimator)}, own)


def _with_views(values: ConfigTree) -> ConfigTree:
    foveation = values.get("foveation")
    return {**values, "foveation": names.looks_as_views(foveation)} if isinstance(foveation, dict) else values


def without_method(values: ConfigTree) -> ConfigTree:
    """A copy without `method`, by which earlier versions named an estimator a second time, and with that estimator."""
    rest = {key: value for key, value in values.items() if key != "method"}
    method, foveation = values.get("method"), values.get("foveation")
    if method is None or not isinstance(foveation, dict):
        return rest
    name, given = names.name_today(str(method)), foveation.get("estimator") or {}
    fixed = names.estimator_of(name, len(foveation.get("fields_of_view") or ()))
    stated = names.in_todays_words(given)
    for key, value in fixed.items():
        shown = stated.get(key, value) if isinstance(stated, dict) else stated
        if shown != value and not (key == "name" and stated == given and names.same_estimator(shown, value)):
            raise ConfigError(
                f"method {method!r} means estimator.{key} {value!r}, but foveation.estimator says "
                f"{shown!r}; remove method: the estimator is called {name!r} now"
            )
    return {**rest, "foveation": names.with_estimator(foveation, name)}


def without_removed(values: ConfigTree) -> ConfigTree:
    """A copy without the keys of features that no longer exist, so that runs of earlier versions load."""
    # The key says nothing where there is no encoder that has weights.
    bare = value_at(values, "foveation.policy.encoder") in (None, ABSENT)
    name = value_at(values, "foveation.estimator.name")
    for path, neutral in (_REMOVED | _REMOVED_OF.get(str(name), {})).items():
        value = value_at(values, path)
        if value is ABSENT:
            continue
        if value != neutral and not (path == "foveation.policy.weights" and bare):
            _refuse_or_warn(path, value)
        values = _without(values, path)
    policy = "foveation.policy"  # all of whose keys are gone
    return _without(values, policy) if value_at(values, policy) == {} else values


def _refuse_or_warn(path: str, value: Any) -> None:
    if path in _WITHOUT_EFFECT:
        warnings.warn(f"{path} is no longer a setting; {value} is left out", Note, stacklevel=2)
        return
    advice = _INSTEAD.get(path) or (
        "nothing was better for it (see CHANGELOG.md). "
        "Remove the key; a run that was trained with it needs the version that trained it"
    )
    raise ConfigError(f"{path}={value} is no longer there: {advice}")


def _without(values: ConfigTree, path: str) -> ConfigTree:
    first, _, rest = path.partition(".")
    if not rest:
        return {key: value for key, value in values.items() if key != first}
    return {**values, first: _without(values[first], rest)}
