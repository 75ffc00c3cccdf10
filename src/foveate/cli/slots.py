"""Places for processes: which device, and how many threads, each of several side by side gets."""

from __future__ import annotations

from foveate.errors import ConfigError


def slots_of(devices: str) -> list[dict[str, str]]:
    """Environment variables for each process that may run at a time.

    Args:
        devices: "auto" (every GPU, else one process for each core), "cpu:N" (N processes on the processor), or a list
            such as "cuda:0,cuda:1".

    Raises:
        ConfigError: for anything else.
    """
    import torch

    if devices == "auto":
        count = torch.cuda.device_count()
        devices = ",".join(f"cuda:{i}" for i in range(count)) or f"cpu:{_cores()}"
    kind, _, number = devices.partition(":")
    if kind == "cpu":
        return [_threads(int(number or 1)) | {"CUDA_VISIBLE_DEVICES": ""}] * int(number or 1)
    places = devices.split(",")
    if not all(place.startswith("cuda:") and place[5:].isdigit() for place in places):
        raise ConfigError(f"--devices {devices}; give auto, cpu, cpu:N or a list such as cuda:0,cuda:1")
    return [_threads(len(places)) | {"CUDA_VISIBLE_DEVICES": place[5:]} for place in places]


def _threads(processes: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, _cores() // processes))}


def _cores() -> int:
    from foveate.cores import available_cores

    return available_cores()
