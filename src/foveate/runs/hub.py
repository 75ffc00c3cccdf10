"""Runs on the Hugging Face Hub: weights as safetensors, the configuration, and a card that says what the run does."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from foveate.errors import ConfigError, FoveateError
from foveate.files import write_text
from foveate.package import __version__
from foveate.runs.folder import WEIGHTS, RunFolder, TrainedRun
from foveate.texts import read_json

SCHEME = "hf://"
_FILES = ("config.yaml", "tuned.json", WEIGHTS, "README.md")
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def push(run: TrainedRun, folder: Path, name: str, *, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a trained run.

    Uploaded are the weights (safetensors), the configuration without paths of this computer, what was tuned, and a
    model card with classes, looks and the scores of the evaluations in the run's folder.

    Args:
        run: loaded from the folder.
        folder: of the run.
        name: "user/name" of a model on the hub; made where there is none.
        private: make it private.
        endpoint: of another hub than the public one.

    Returns:
        The address of the model.

    Raises:
        ConfigError: when the name is none, or the run is an ensemble.
        FoveateError: when the hub refuses.
    """
    hub = _hub()
    _check_name(name)
    if run.config.is_ensemble:
        raise ConfigError("an ensemble consists of several runs; push each member separately")
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary)
        _write_files(run, folder, name, files)
        try:
            api = hub.HfApi(endpoint=endpoint)
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=files, commit_message=f"Foveate {__version__}")
        except Exception as error:  # of the network, of permissions, of names
            raise _failed(f"could not push to {name}", error) from error
    return f"{api.endpoint}/{name}"


def fetch(address: str, *, endpoint: str | None = None) -> Path:
    """Download a run; what was downloaded before is used again.

    Args:
        address: "hf://user/name", or "hf://user/name@revision".
        endpoint: of another hub than the public one.

    Returns:
        The folder of the run.

    Raises:
        ConfigError: when the address is none, or there is no run under it.
        FoveateError: when the hub cannot be reached.
    """
    hub = _hub()
    name = address.removeprefix(SCHEME)
    _check_name(name)
    name, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES), endpoint=endpoint)
    except Exception as error:  # unknown names, no network, no permission
        raise _failed(f"could not load {address}", error) from error
    found = Path(folder)
    missing = [file for file in ("config.yaml", WEIGHTS) if not (found / file).exists()]
    if missing:
        raise ConfigError(f"{address} is not a Foveate run: it has no {' and no '.join(missing)}")
    return found


def _hub() -> Any:
    import huggingface_hub  # noqa: PLC0415 - takes a second, which only this needs

    return huggingface_hub


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not the name of a model on the hub; give user/name, for example hf://ada/vessels"
        )


def _failed(what: str, error: Exception) -> FoveateError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    kind = type(error).__name__
    hint = {
        "RepositoryNotFoundError": "; there is no such model, or it is private: `hf auth login`",
        "RevisionNotFoundError": "; there is no such revision",
    }.get(kind, "")
    return FoveateError(f"{what}: {reason}{hint}")


def _write_files(run: TrainedRun, folder: Path, name: str, files: Path) -> None:
    weights = {key: value.cpu().contiguous() for key, value in run.segmenter.state_dict().items()}
    save_file({key: value.clone() for key, value in weights.items()}, files / WEIGHTS, {"foveate": __version__})
    saved = RunFolder(folder).configured()
    data = saved.data.model_copy(update={"root": Path("data"), "folder": Path(saved.name), "manifest": None})
    plain = saved.model_copy(update={"data": data.model_copy(update={"split": type(data.split)()})})
    write_text(files / "config.yaml", plain.to_yaml())
    tuned = RunFolder(folder).tuned_file
    if tuned.exists():
        write_text(files / tuned.name, tuned.read_text(encoding="utf-8"))
    write_text(files / "README.md", model_card(run, folder, name))


def model_card(run: TrainedRun, folder: Path, name: str) -> str:
    """The model's page on the hub, from the configuration and the evaluations of a run."""
    return "\n".join([*_card(run, folder, name), ""])


def _card(run: TrainedRun, folder: Path, name: str) -> Iterator[str]:
    config = run.config
    yield "---\nlibrary_name: foveate\npipeline_tag: image-segmentation\ntags: [foveate, semantic-segmentation]\n---"
    network = config.network.factory or f"{config.network.architecture} with encoder {config.network.encoder}"
    views = ", ".join(map(str, config.foveation.fields_of_view))
    yield f"# {name.rpartition('/')[2]}\n"
    yield (
        f"Segments images far larger than a network's input, with [Foveate]"
        f"(https://pypi.org/project/foveate) {__version__}: {network}, patches of {config.foveation.patch_size} px, "
        f"fields of view of {views} px, trained for {config.training.steps} steps.\n"
    )
    yield f"Classes: {', '.join(config.data.class_names)}. Bands: {config.data.in_channels}.\n"
    yield (
        f'```python\nimport foveate\n\nrun = foveate.load("{SCHEME}{name}")\nrun.predict("huge.tif", "out")\n'
        f"classes, probabilities = run.predict(array)\n```\n"
    )
    for split in ("test", "val"):
        path = RunFolder(folder).evaluation(split)
        if path.exists():
            yield from _scores(read_json(path, ConfigError, "evaluate the run again"), split)


def _scores(tree: Any, split: str) -> Iterator[str]:
    yield f"## {'Test' if split == 'test' else 'Validation'} images\n"
    yield "| class | IoU % | Dice % |\n|---|---|---|"
    for one in tree["classes"]:
        yield f"| {one['name']} | {_percent(one['iou'])} | {_percent(one['dice'])} |"
    yield f"| mean | {_percent(tree['miou'])} | {_percent(tree['mean_dice'])} |\n"
    yield f"{tree['passes_per_megapixel']:.0f} forward passes per megapixel.\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
