"""The `foveate` command: gathers the commands and turns errors into messages and exit codes."""

import os
import sys
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer

from foveate.cli.terminal import errors
from foveate.errors import FoveateError, Note
from foveate.package import __version__
from foveate.processes import end_on_signals, follow_leader, is_first_process

# Idle threads of torch's kernels spin by default. Where workers read on the same cores, each then waits for the other:
# training on two cores was measured ten times slower. Must be set before torch is imported, which commands do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Drivers that follow what a file says to other files or to servers. The readers ask none of them
# (data/readers/_gdal_checks.py); what GDAL opens by itself, beside a picture or named in a VRT, must not be one of
# theirs either.
_FOLLOWING = (
    "BAG,COASP,DAAS,DIMAP,ECRGTOC,EEDA,EEDAI,ERS,GTI,GenBin,HDF5,HDF5Image,HTTP,ILWIS,ISCE,ISIS2,ISIS3,KMLSUPEROVERLAY,"
    "MAP,MFF,MFF2,MRF,MVT,netCDF,OZI,PAux,PCIDSK,PDS,PDS4,PLMOSAIC,ROI_PAC,RPFTOC,RRASTER,RS2,RST,Rasterlite,S102,S104,"
    "S111,SAFE,SENTINEL2,SNAP_TIFF,STACIT,STACTA,TIL,TSX,VICAR,WCS,WMS,WMTS,XPM,Zarr"
)
_ALLOWED = os.environ.get("FOVEATE_GDAL_DRIVERS", "").replace(" ", "").split(",")
os.environ.setdefault("GDAL_SKIP", ",".join(name for name in _FOLLOWING.split(",") if name not in _ALLOWED))

app = typer.Typer(
    name="foveate",
    help="Segment images far larger than a network's input: look widely everywhere, and closely where it pays.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help. The docstring of a command is its help.
COMMANDS = (
    "train.init",
    "train.train",
    "evaluate.evaluate",
    "evaluate.compare",
    "evaluate.tune",
    "view.report",
    "predict.predict",
    "convert.polygons",
    "train.export",
    "train.push",
    "view.view",
    "view.info",
    "view.networks",
    "convert.prepare",
    "convert.convert",
    "view.config",
    "evaluate.demo",
)
for _module, _, _name in (path.partition(".") for path in COMMANDS):
    app.command()(getattr(import_module(f"foveate.cli.{_module}"), _name))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foveate {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def _show_once(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
    """A warning of Foveate's own as a sentence, once: where in the code it arose says nothing to who runs a command."""
    if not issubclass(category, Note):
        _as_python_does(message, category, *place, **rest)
    elif is_first_process() and str(message) not in _said:
        _said.add(str(message))
        errors.say(str(message), "note", "yellow")


_as_python_does = warnings.showwarning
_said: set[str] = set()


def main() -> None:
    """Run the command line.

    Exit code 0 is success, 1 partly failed, 2 a mistake in what was given, 3 done but for what could not be read, 130
    interrupted, 143 terminated.
    """
    warnings.showwarning = _show_once
    follow_leader()
    end_on_signals(errors.say)
    try:
        app()
    except FoveateError as error:
        errors.say(str(error), "error", "bold red")
        sys.exit(2)
    except BrokenPipeError:  # whoever read what is printed went away
        sys.exit(1)
    except OSError as error:  # a place that cannot be read or written, which says itself which one
        errors.say(f"{error}; fix this, or choose another place", "error", "bold red")
        sys.exit(2)


if __name__ == "__main__":
    main()
