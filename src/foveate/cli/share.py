"""Commands that hand a run on: `foveate export` and `foveate push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.arguments import Checkpoint, Code, Overwrite, RunFolder, check_run
from foveate.cli.console import output


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .onnx or .pt2.")],
    view: Annotated[int | None, typer.Option(help="Write only this field of view, in pixels (default: all).")] = None,
    pixel_size: Annotated[
        str | None, typer.Option(metavar="LENGTH", help='Pixel size of the images, such as "0.3 m", for Deepness.')
    ] = None,
    checkpoint: Checkpoint = "best",
    overwrite: Overwrite = False,
    code: Code = None,
) -> None:
    """Write the network of a trained run as ONNX or as a torch.export program.

    OUT ends in .onnx (needs pip install 'foveate[onnx]') or .pt2. The network takes patches of raw values divided
    by their range (255 for 8 bits), normalises them itself and returns probabilities. Each field of view of the run
    gets its own file, such as model-256px.onnx and model-512px.onnx. Each file is checked against torch on patches
    of the run's images.

    Of a cascade each file but the closest also returns `handed`. The next closer one takes it, with `corners`: the
    top left of its windows in the wider ones, from 0 to 1. --view with the widest look writes that look alone.

    ONNX files hold the metadata that the QGIS plug-in Deepness reads: class names, tile size, overlap and, with
    --pixel-size, the resolution.

    Examples:

        foveate export runs/mine model.onnx --view 256

        foveate export runs/map model.onnx --view 512 --pixel-size "0.3 m"

        foveate export runs/mine model.pt2
    """
    from foveate.texts import metres

    check_run(run)
    size = metres(pixel_size) if pixel_size else None

    from foveate.api import load
    from foveate.runs.share import check_format
    from foveate.runs.share import export as write

    check_format(out)
    trained = load(run, checkpoint=checkpoint, device="cpu")
    for done in write(trained, out, view=view, pixel_size=size, overwrite=overwrite):
        output.say(
            f"written to {done.path}: field of view {done.view} px; probabilities differ from torch by at most "
            f"{done.apart:.1e} on {done.compared}"
        )


def push(
    run: RunFolder,
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Name of the model on the hub; created if it is new.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    checkpoint: Checkpoint = "best",
    code: Code = None,
) -> None:
    """Upload a trained run to the Hugging Face Hub.

    The upload holds the weights (safetensors), the configuration without paths of this computer, the result of
    `foveate tune`, and a model card with classes, fields of view and scores. Log in first with `hf auth login`.
    Afterwards, every command that takes a RUN also takes hf://USER/NAME.

    Examples:

        foveate push runs/mine ada/vessels

        foveate predict hf://ada/vessels huge.tif --out predictions
    """
    check_run(run)

    from foveate.api import push as upload

    output.say(f"pushed to {upload(run, name, checkpoint=checkpoint, private=private)}")
    output.say(f"next: foveate predict hf://{name} IMAGE --out DIR")
