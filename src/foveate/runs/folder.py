"""`RunFolder`: where the parts of a run lie, and how a trained segmenter, or an ensemble, is loaded from them."""

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch

from foveate import build
from foveate.config_base import with_overrides
from foveate.devices import peak_memory_mb
from foveate.errors import CheckpointError, ConfigError, Note, OutputExistsError
from foveate.files import write_text
from foveate.foveation import FixedScale, earlier_name, fixed_names, with_estimator
from foveate.inference.runner import sized
from foveate.networks import NetworkPerScale, check_code
from foveate.package import __version__
from foveate.processes import is_first_process, locked_folder
from foveate.runs.config import RunConfig
from foveate.runs.tuned import Trial, read_tuned, with_tuned
from foveate.segmenter import FoveatedSegmenter
from foveate.texts import sealed

WEIGHTS = "model.safetensors"  # of a run from the hub, in place of checkpoints


def member_configs(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration of each member, by its name: that of the ensemble with one field of view fixed."""
    values = {**config.tree(), "members": None}
    return {
        name: RunConfig.parse({**values, "foveation": with_estimator(values["foveation"], name)})
        for name in fixed_names(len(config.foveation.fields_of_view))
    }


def member_folders(config: RunConfig, folder: Path) -> list[Path]:
    """The run folder of each member, narrowest field of view first, of the ensemble in `folder`."""
    if config.members is not None:
        return [folder / member for member in config.members]
    return [_default_folder(folder / "members", name) for name in fixed_names(len(config.foveation.fields_of_view))]


def _default_folder(folder: Path, name: str) -> Path:
    """Where a member is, or will be; earlier versions had another name for it."""
    before = folder / str(earlier_name(name))
    return before if before.is_dir() and not (folder / name).exists() else folder / name


def join_members(config: RunConfig, members: Sequence[tuple[Path, RunConfig, FoveatedSegmenter]]) -> FoveatedSegmenter:
    """The segmenter that averages its members' predictions.

    Raises:
        CheckpointError: when a member has other fields of view or classes, or is not the fixed model it should be.
    """
    for index, (folder, member, _) in enumerate(members):
        wanted = (config.foveation.scales, index, config.data.class_names)
        estimator = member.foveation.estimator
        fixed = estimator.index if isinstance(estimator, FixedScale) else None  # the view that it always uses
        found = (member.foveation.scales, fixed, member.data.class_names)
        for name, is_, should in zip(("fields of view", "fixed scale", "classes"), found, wanted, strict=True):
            if is_ != should:
                raise CheckpointError(f"{folder} cannot be member {index + 1}: {name}: {is_}, needed {should}")
    return FoveatedSegmenter(
        NetworkPerScale([segmenter.network for *_, segmenter in members]),
        config.foveation.scales,
        in_channels=config.data.in_channels,
        overview_downsample=config.foveation.overview_downsample,
        estimator=config.foveation.estimator,
        alignment=config.foveation.alignment,
        membership=config.data.membership,
    )


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A trained segmenter and the configuration it was trained with.

    Attributes:
        config: with overrides applied.
        segmenter: on `device`, in eval mode.
        device: to run on.
        tuned: what `foveate tune` chose; `config` has it already, but for a budget in seconds.
        path: its folder; None for one that was not loaded from a folder.
        overrides: the changes to its configuration that it was loaded with.
    """

    config: RunConfig = field(repr=False)  # pages
    segmenter: FoveatedSegmenter = field(repr=False)
    device: torch.device
    tuned: tuple[Trial, ...] = field(default=(), repr=False)
    path: Path | None = None
    overrides: tuple[str, ...] = ()

    def configured(self, changes: Sequence[str] = ()) -> Self:
        """This run as its folder says now, with changes of the configuration."""
        if self.path is None:
            return replace(self, config=self.config.changed(changes))
        folder = RunFolder(self.path)
        config, tuned = folder.configured([*self.overrides, *changes]), tuple(read_tuned(folder.tuned_file))
        return replace(self, config=config, tuned=tuned).settled()

    def settled(self) -> Self:
        """This run with the sizes that depend on its device."""
        inference = sized(self.config.inference, self.segmenter, self.device, self.config.training.precision)
        return replace(self, config=self.config.model_copy(update={"inference": inference}))


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # programs give strings, too

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of this name, "best" or "last"."""
        return self.path / "checkpoints" / f"{name}.ckpt"

    @property
    def trained_file(self) -> Path:
        """There once the run, or every member of an ensemble, is trained to its last step."""
        return self.path / "trained.json"

    @property
    def tuned_file(self) -> Path:
        """What `foveate tune` chose."""
        return self.path / "tuned.json"

    def evaluation(self, split: str) -> Path:
        """The results on a split."""
        return self.path / "evaluation" / f"{split}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process train here meanwhile; of several training processes the first one sees to that.

        Raises:
            OutputInUseError: when another process does, naming it.
            OutputWriteError: when the folder cannot be made.
        """
        if is_first_process():
            with locked_folder(self.path, ".lock"):
                yield
        else:
            yield

    def start(self, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
        """Make the folder and save the configuration; refuse to mix with an earlier run.

        Of several training processes the first one does so, any other does nothing.

        Raises:
            OutputExistsError: when a run is there and neither `resume` nor `overwrite` is set.
        """
        if not is_first_process():
            return
        if self.config_file.exists() and not resume:
            if not overwrite:
                raise OutputExistsError(
                    f"{self.path} holds a run already; pass --resume to continue it, --overwrite to start again, "
                    f"or choose another folder with --out"
                )
            self._clear()
        self.trained_file.unlink(missing_ok=True)
        write_text(self.config_file, config.to_yaml(), overwrite=True)

    def mark_trained(self, seconds: float | None = None) -> None:
        """Note that training is done, and what it cost; of several training processes the first one does so.

        Args:
            seconds: wall-clock time since the training was last started; None where nothing was trained here.
        """
        cost = {} if seconds is None else {"seconds": seconds, "peak_memory_mb": peak_memory_mb()}
        if is_first_process():
            write_text(self.trained_file, sealed({"foveate": __version__, **cost}), overwrite=True)

    def _clear(self) -> None:
        for part in ("checkpoints", "tensorboard", "evaluation", "members", "foveation", "report"):
            shutil.rmtree(self.path / part, ignore_errors=True)
        for name in ("metrics.csv", "config.yaml", "trained.json", "tuned.json"):
            (self.path / name).unlink(missing_ok=True)

    def load(self, checkpoint: str, device: torch.device, overrides: list[str] | None = None) -> TrainedRun:
        """Load a trained segmenter.

        Args:
            checkpoint: "best" or "last"; without a best one the last, with a `Note` where a validation had chosen one.
            device: where to put it.
            overrides: `key.subkey=value` changes to the configuration, such as `inference.overlap=0.5`.

        Raises:
            ConfigError: when this is no run, or an override is not allowed.
            CheckpointError: when the checkpoint is missing, damaged or of another configuration.
            NetworkError: when its network is code that was not allowed, see `foveate.trust_code`.
        """
        if checkpoint not in ("best", "last"):
            raise ConfigError(f"checkpoint {checkpoint!r}; allowed are best and last")
        config = self.configured(overrides)
        load = self._load_ensemble if config.is_ensemble else self._load_trained
        segmenter, tuned = load(config, checkpoint).eval().to(device), tuple(read_tuned(self.tuned_file))
        return TrainedRun(config, segmenter, device, tuned, self.path, tuple(overrides or ())).settled()

    def configured(self, overrides: list[str] | None = None) -> RunConfig:
        """The configuration with overrides, and with what `foveate tune` chose; no weights are loaded.

        Raises:
            ConfigError: when this is no run, or an override is not allowed.
        """
        saved = RunConfig.load(self.config_file)
        config = RunConfig.parse(with_overrides(saved.tree(), overrides or []), source=str(self.config_file))
        if config.is_ensemble and config.data.trained_on is None:
            config = self._as_its_members(config)
        if config.network.factory is not None:
            check_code(config.network.factory, self.path)
        foveation = config.foveation
        inference = with_tuned(
            config.inference, tuple(read_tuned(self.tuned_file)), foveation.estimator, foveation.scales.target
        )
        return config.model_copy(update={"inference": inference})

    def note_of_tuning(self, config: RunConfig) -> str:
        """What to tell of a run whose looks could be tuned and are not; empty where there is nothing to tell."""
        planner = config.inference.planner or config.foveation.estimator.walk.planner
        if planner != "pyramid" or config.inference.looks is not None or self.tuned_file.exists():
            return ""
        return (
            f"the looks of this run are not tuned; `foveate tune {self.path}` chooses the best on the validation images"
        )

    def _as_its_members(self, config: RunConfig) -> RunConfig:
        """With what the members were trained on, which is the same for all."""
        file = RunFolder(member_folders(config, self.path)[0]).config_file
        trained = RunConfig.load(file).data.trained_on if file.exists() else None
        return config.model_copy(update={"data": config.data.model_copy(update={"trained_on": trained})})

    def _load_trained(self, config: RunConfig, checkpoint: str) -> FoveatedSegmenter:
        asked = path = self.checkpoint(checkpoint)
        if checkpoint == "best" and not path.exists():
            path = self.checkpoint("last")
        shared = self.path / WEIGHTS
        if shared.exists() and not path.exists():
            path, weights = shared, build.load_shared_weights(shared)
        else:
            state = build.load_segmenter_state(path)
            if path != asked and state.has_best:
                warnings.warn(f"{asked}, the best step of the training, is missing; {path.name} is used", Note, 2)
            build.check_same_config(RunConfig.completed(state.config), config.tree(), free=build.CHOSEN_AT_INFERENCE)
            weights = state.weights
        bare = config.network.model_copy(update={"weights": None})  # the checkpoint brings them, nothing is downloaded
        segmenter = segmenter_of(config.model_copy(update={"network": bare}))
        try:
            segmenter.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the configured network: {error}") from None
        return segmenter

    def _load_ensemble(self, config: RunConfig, checkpoint: str) -> FoveatedSegmenter:
        members = []
        for folder in member_folders(config, self.path):
            run = RunFolder(folder)
            if not run.checkpoint("last").exists():
                raise CheckpointError(
                    f"the ensemble {self.path} lacks its member {folder}; train what is missing with "
                    f"`foveate train {self.config_file} --out {self.path} --resume`"
                )
            member = run.load(checkpoint, torch.device("cpu"))
            members.append((folder, member.config, member.segmenter))
        return join_members(config, members)


def load_run(
    path: Path | str,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    overrides: list[str] | None = None,
) -> TrainedRun:
    """Load a trained run from its folder.

    Args:
        path: the folder that `foveate train` made.
        checkpoint: "best" or "last".
        device: where to put the segmenter.
        overrides: `key.subkey=value` changes to the configuration, such as `inference.overlap=0.5`.

    Raises:
        ConfigError, CheckpointError: see `RunFolder.load`.
    """
    return RunFolder(Path(path)).load(checkpoint, torch.device(device), overrides)


def segmenter_of(config: RunConfig) -> FoveatedSegmenter:
    """A new segmenter, as a run's configuration describes it; `NetworkError` when it cannot be built."""
    data = config.data
    return build.build_segmenter(
        config.foveation,
        config.network,
        classes=len(data.classes),
        in_channels=data.in_channels,
        membership=data.membership,
    )
