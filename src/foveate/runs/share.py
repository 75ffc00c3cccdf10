"""Hand a run on: the network of each look as ONNX or for torch.export, or the whole run on the Hugging Face Hub."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from foveate.errors import ConfigError, FoveateError, NetworkError, reason_of
from foveate.files import refuse_existing, write_text, written
from foveate.foveation.estimator import Joint
from foveate.package import __version__
from foveate.runs import _exported as exported
from foveate.runs.folder import WEIGHTS, RunFolder, TrainedRun
from foveate.texts import percent, read_json

FORMATS = (".onnx", ".pt2")
_MOST_APART = 1e-3  # of a probability
SCHEME = "hf://"
_FILES = ("config.yaml", "tuned.json", WEIGHTS, "README.md")
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
_Writer = Callable[[exported.ExportedLook, exported.Tensors, Path, dict[str, Any]], Callable[..., exported.Output]]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written."""

    path: Path  # the file
    view: int  # field of view of its look, level-0 pixels
    apart: float  # largest difference of a probability from torch's, on the patches that were compared
    compared: str  # what was compared: patches of an image of the run, or noise where none is there


def export(
    run: TrainedRun,
    path: Path,
    *,
    view: int | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> list[Exported]:
    """Write the network of every look that the run passes, each to a file of its own; see `foveate.Run.export`.

    The input is (N, C, P, P): the raw values of a patch, resampled to the patch size and divided by `data.scale` (255
    for 8 bits). The output is (N, classes, P, P): probabilities over the same window. Of several looks the file's
    name gets the field of view: model-512px.onnx. ONNX files hold the metadata that the QGIS plug-in Deepness reads.

    Of a cascade a look also returns `handed`, and the next closer one takes it, with `corners`: where its windows lie
    in the wider ones. With a surround a look takes two pictures, `pixels` and `around`, see the metadata; Deepness has
    no place for the second. With `view` the widest look is written alone, as a network of pixels with one output.
    """
    check_format(path)
    if isinstance(run.segmenter.estimator, Joint):
        raise ConfigError("a network that sees two fields of view in each pass cannot be exported")
    views = exported.views_to_export(run, view)
    names = [path if len(views) == 1 else path.with_stem(f"{path.stem}-{one}px") for one in views]
    for name in names:
        refuse_existing(name, overwrite)
    writer = exported.onnx if path.suffix == ".onnx" else exported.program
    size = pixel_size or run.config.data.working_pixel
    looks, compared = exported.looks_to_export(run, views)
    return [_export_one(run, name, look, compared, writer, size) for name, look in zip(names, looks, strict=True)]


def check_format(path: Path) -> None:
    """Refuse a name that says no format, or one whose packages are missing; call it before any work.

    Raises:
        ConfigError: saying what to do.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the name of an export ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx":
        if torch.__version__ < "2.7":  # compared as a version
            raise ConfigError(f"ONNX files need torch 2.7 or newer, this is {torch.__version__}; .pt2 files do not")
        for package in ("onnx", "onnxruntime", "onnxscript"):
            try:
                import_module(package)
            except ModuleNotFoundError:
                raise ConfigError(f"ONNX files need {package}; pip install 'foveate[onnx]'") from None


def _export_one(
    run: TrainedRun, path: Path, look: exported.LookToExport, compared: str, writer: _Writer, pixel_size: float | None
) -> Exported:
    with written(path, overwrite=True) as partial:
        try:
            loaded = writer(look.module, look.inputs, partial, exported.metadata(run, look, pixel_size))
        except FoveateError:
            raise
        except Exception as error:  # the exporters raise many kinds
            network = run.config.network
            name = network.factory or f"{network.architecture} with encoder {network.encoder}"
            raise NetworkError(f"the network {name} cannot be exported as {path.suffix}: {reason_of(error)}") from error
        with torch.inference_mode():
            pairs = zip(exported.each(loaded(*look.inputs)), exported.each(look.module(*look.inputs)), strict=True)
            apart = max(float((found - wanted).abs().max()) for found, wanted in pairs)
        if not apart <= _MOST_APART:
            raise NetworkError(
                f"the export {path} does not agree with torch: probabilities differ by {apart:.3g} on {compared}; "
                f"nothing was written"
            )
    return Exported(path, look.view, apart, compared)


def push(run: TrainedRun, name: str, *, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a trained run to the hub at `endpoint`, see `foveate.push`; the address of the model.

    Uploaded are the weights (safetensors), the configuration without paths of this computer, what was tuned, and a
    model card with classes, looks and the scores of the evaluations in the run's folder.
    """
    hub = _hub()
    _check_name(name)
    if run.config.is_ensemble:
        raise ConfigError("an ensemble consists of several runs; push each member separately")
    assert run.path is not None  # it was loaded from its folder
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary)
        _write_files(run, RunFolder(run.path), name, files)
        try:
            api = hub.HfApi(endpoint=endpoint)
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=files, commit_message=f"Foveate {__version__}")
        except Exception as error:  # of the network, of permissions, of names
            raise _failed(f"could not push to {name}", error) from error
    return f"{api.endpoint}/{name}"


def fetch(address: str, *, endpoint: str | None = None) -> Path:
    """Download the run at "hf://user/name[@revision]"; what was downloaded before is used again.

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
    hints = {
        "RepositoryNotFoundError": "; there is no such model, or it is private: `hf auth login`",
        "RevisionNotFoundError": "; there is no such revision",
    }
    return FoveateError(f"{what}: {reason_of(error)}{hints.get(type(error).__name__, '')}")


def _write_files(run: TrainedRun, folder: RunFolder, name: str, files: Path) -> None:
    weights = {key: value.cpu().contiguous().clone() for key, value in run.segmenter.state_dict().items()}
    save_file(weights, files / WEIGHTS, {"foveate": __version__})
    saved = folder.configured()
    data = saved.data.model_copy(update={"root": Path("data"), "folder": Path(saved.name), "manifest": None})
    plain = saved.model_copy(update={"data": data.model_copy(update={"split": type(data.split)()})})
    write_text(files / "config.yaml", plain.to_yaml())
    if folder.tuned_file.exists():
        shutil.copy(folder.tuned_file, files)
    write_text(files / "README.md", "\n".join([*_card(run, folder, name), ""]))


def _card(run: TrainedRun, folder: RunFolder, name: str) -> Iterator[str]:
    """The model's page on the hub, from the configuration and the evaluations of a run."""
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
        path = folder.evaluation(split)
        if path.exists():
            yield from _scores(read_json(path, ConfigError, "evaluate the run again"), split)


def _scores(tree: Any, split: str) -> Iterator[str]:
    yield f"## {'Test' if split == 'test' else 'Validation'} images\n"
    yield "| class | IoU % | Dice % |\n|---|---|---|"
    for one in tree["classes"]:
        yield f"| {one['name']} | {percent(one['iou'])} | {percent(one['dice'])} |"
    yield f"| mean | {percent(tree['miou'])} | {percent(tree['mean_dice'])} |\n"
    yield f"{tree['passes_per_megapixel']:.0f} forward passes per megapixel.\n"
