"""Which devices work side by side on this computer."""

from __future__ import annotations

import re

import torch

from foveate.errors import ConfigError

_ALLOWED = "allowed are auto, a number such as 4, cpu, cpu:4, cuda, cuda:0,1 and cuda:0,cuda:1"


def devices_of(text: str) -> list[str]:
    """The device of each process.

    Args:
        text: "auto" (every CUDA device, else one process on what there is), a number of CUDA devices or else of
            processes on the processor, "cpu:N" (N processes on the processor), "cuda" (all), "cuda:0,1" or
            "cuda:0,cuda:1" (these), or one device.

    Raises:
        ConfigError: for anything else, and when there are not so many devices.
    """
    text, found = text.strip(), torch.cuda.device_count()
    if text == "auto":
        return [f"cuda:{i}" for i in range(found)] or [_one()]
    if text.isdigit() and int(text) > 0:
        return _cuda(list(range(int(text))), text) if found else ["cpu"] * int(text)
    if match := re.fullmatch(r"cpu(?::([1-9]\d*))?", text):
        return ["cpu"] * int(match[1] or 1)
    if text == "cuda":
        return _cuda(list(range(max(1, found))), text)
    if re.fullmatch(r"cuda:\d+(,(cuda:)?\d+)*", text):
        return _cuda([int(number) for number in re.findall(r"\d+", text)], text)
    if text == "mps":
        return ["mps"]
    raise ConfigError(f"devices {text!r}; {_ALLOWED}")


def _cuda(numbers: list[int], text: str) -> list[str]:
    found = torch.cuda.device_count()
    if max(numbers) >= found or len(set(numbers)) < len(numbers):
        raise ConfigError(f"devices {text!r}, and {found} CUDA devices were found; {_ALLOWED}")
    return [f"cuda:{number}" for number in numbers]


def _one() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return str(accelerator or "cpu")


def device_of(rank: int, device: str) -> str:
    """The device of one of several processes: "cuda" is spread over all CUDA devices, any other is for all."""
    return f"cuda:{rank % torch.cuda.device_count()}" if device == "cuda" else device
