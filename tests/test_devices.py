"""What a run cost."""

import torch

from foveate.devices import CostMeter, PeakMemory


def test_devices_nobody_used_are_not_asked(monkeypatch):
    def loads_a_library():
        raise AssertionError("asked for devices")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", loads_a_library)
    assert PeakMemory.of_this_process().device == 0


def test_the_device_that_was_used_most_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: [2, 3][device] * 2**20)
    assert PeakMemory.of_this_process().device == 3.0


def test_memory_is_that_of_the_process_that_needed_most():
    meter = CostMeter()
    meter.add(3, 2_000_000, PeakMemory(10.0**9, 0.0))
    meter.add(1, 2_000_000)
    tree = meter.tree()
    assert (tree["passes"], tree["megapixels"], tree["passes_per_megapixel"]) == (4, 4.0, 1.0)
    assert tree["peak_memory_mb"] == 10.0**9
