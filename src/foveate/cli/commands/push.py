"""`foveate push`."""

from __future__ import annotations

from typing import Annotated

import typer

from foveate.cli.arguments import Checkpoint, Code, RunFolder

HELP = """Upload a trained run to the Hugging Face Hub.

The upload holds the weights (safetensors), the configuration without paths of this computer, the result of `foveate
tune`, and a model card with classes, fields of view and scores. Log in first with `hf auth login`. Afterwards, every
command that takes a RUN also takes hf://USER/NAME.

Examples:

    foveate push runs/mine ada/vessels

    foveate predict hf://ada/vessels huge.tif --out predictions
"""


def push(
    run: RunFolder,
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Name of the model on the hub; created if it is new.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    checkpoint: Checkpoint = "best",
    code: Code = None,
) -> None:
    """Upload a run."""
    from foveate.api.runs import push as upload
    from foveate.cli.console import output

    output.say(f"pushed to {upload(run, name, checkpoint=checkpoint, private=private)}")
    output.say(f"next: foveate predict hf://{name} IMAGE --out DIR")
