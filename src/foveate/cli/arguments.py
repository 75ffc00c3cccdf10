"""Arguments that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from foveate.errors import CheckpointError, ConfigError, DatasetError, ImageReadError, OutputExistsError

if TYPE_CHECKING:
    from foveate.types import Coordinates


def _trust(given: list[str] | None) -> list[str] | None:
    """What --code allows, in this process and those it starts."""
    if given:
        from foveate.networks.config import trust_code

        trust_code(*given)
    return given


def _run_folder(text: str) -> Path:
    """The folder of a run; one on the hub is downloaded first."""
    if not text.startswith("hf:/"):
        return Path(text)
    from foveate.runs.share import fetch

    return fetch(text)


Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration values to change.")
]
RunFolder: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", parser=_run_folder, help="Folder of a finished or running training, or hf://USER/NAME."
    ),
]
# Of earlier versions; --devices says both.
Device: TypeAlias = Annotated[str, typer.Option(hidden=True)]
ProcessCount: TypeAlias = Annotated[int, typer.Option("--processes", min=1, hidden=True)]
Devices: TypeAlias = Annotated[
    str | None,
    typer.Option("--devices", help="Devices, one process each: auto (every GPU), cpu, cpu:4, or GPUs: 0, 0,2, 0-3."),
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="The same as KEY=VALUE; may be repeated."),
]
Checkpoint: TypeAlias = Annotated[str, typer.Option(help="Which checkpoint to load: best or last.")]
Code: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="FOLDER|NAME",
        callback=_trust,
        help="Allow your own network: the folder of its module, or an installed package.module:callable.",
    ),
]
Plane: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="N|z=N,t=N|bands", help="Plane of a stack, counted from 1; or bands, if its pages are bands."),
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]


def joined(overrides: list[str] | None, sets: list[str] | None) -> list[str]:
    """Values to change that were given alone and by --set; the latter count where both name a key."""
    return [*(overrides or []), *(sets or [])]


def places(devices: str | None, device: str, processes: int) -> tuple[str, int]:
    """The device of each process, joined by commas, or one for all of them; and how many processes."""
    from foveate.devices import device_named, devices_of

    if devices is None:
        place = device_named(device)
        return place.type if device in ("auto", "cuda") else str(place), processes
    found = devices_of(devices)
    return ",".join(dict.fromkeys(found)), len(found)


def coordinates_of(name: str, option: str) -> Coordinates:
    """The coordinates of this name, which an option gives."""
    from typing import cast, get_args

    from foveate.types import Coordinates

    if name not in get_args(Coordinates):
        raise ConfigError(f"{option} {name}; allowed are {', '.join(get_args(Coordinates))}")
    return cast("Coordinates", name)


def check_run(run: Path, overrides: list[str] | None = None, *, data: bool = False) -> None:
    """Refuse at once, before torch is loaded, what is no run, a bad setting, or data that are not there."""
    from foveate.runs.config import RunConfig

    config = RunConfig.load(run / "config.yaml", overrides)
    folder = run / "checkpoints"
    weights = (folder / "best.ckpt", folder / "last.ckpt", run / "model.safetensors")  # the last of a run from the hub
    if not config.is_ensemble and not any(path.exists() for path in weights):
        raise CheckpointError(
            f"no checkpoint at {folder / 'last.ckpt'}; a run keeps best.ckpt and last.ckpt in its folder checkpoints"
        )
    if data:
        config.data.check_there()


def check_run_or_comparison(folder: Path, overrides: list[str]) -> None:
    """Refuse at once what `foveate report` can make no page of."""
    from foveate.runs.config import RunConfig

    if not (folder / "comparison.json").is_file() and not (folder / "runs").is_dir():
        RunConfig.load(folder / "config.yaml", overrides)
    elif overrides:
        raise ConfigError(f"{folder} is a comparison, whose runs keep their settings; leave out {overrides[0]}")


def check_not_trained(run: Path) -> None:
    """Refuse a folder with weights of an earlier training at once, before its labels are read."""
    found = [name for name in ("best.ckpt", "last.ckpt") if (run / "checkpoints" / name).exists()]
    if found:
        raise OutputExistsError(
            f"{run / 'checkpoints'} holds {' and '.join(found)} of an earlier run; pass --resume to continue it, "
            "--overwrite to start again, or choose another folder with --out"
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder of images that is not there."""
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder}; give a folder with images/ and masks/ (or labels/) in it")


def check_all_there(paths: list[Path]) -> None:
    """Refuse files and folders that are not there at once; addresses on servers are not asked."""
    for path in paths:
        # A path has made one slash of the two of an address.
        if not path.exists() and ":/" not in str(path) and not str(path).startswith("/vsi"):
            raise ImageReadError(f"nothing at {path}; give an image, a class map, polygons or a folder of predictions")


def check_image(image: str) -> None:
    """Refuse a file that is not there at once, before what reads images is loaded."""
    elsewhere = "://" in image or image.startswith("/vsi") or "{band}" in image
    if not elsewhere and not Path(image).exists():
        raise ImageReadError(f"no image at {image}")


def refuse_settings(images: list[str]) -> None:
    """Refuse what looks like a setting among images: other commands take it there."""
    from foveate.runs.config import RunConfig

    setting = re.compile(rf"({'|'.join(RunConfig.model_fields)})\.[\w.]+=")
    for image in images:
        if setting.match(image) and not Path(image).exists():
            raise ConfigError(f"{image} is a setting, not an image; write --set {image}")


def refuse_method(option: str, names: str | None, today: str) -> None:
    """Refuse an option of earlier versions, which named estimators a second time."""
    if names is None:
        return
    from foveate.foveation.config import name_today

    now = ",".join(name_today(name) for name in names.split(","))
    raise ConfigError(f"{option} {names} is called {today} {now} now; see CHANGELOG.md")
