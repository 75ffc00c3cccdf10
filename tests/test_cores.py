import os

import pytest
import torch

from foveate.devices import cores_left_by


def test_readers_are_left_their_cores_and_the_rest_comes_back(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        with cores_left_by(3):
            assert torch.get_num_threads() == 5
        with cores_left_by(20):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 8
        torch.set_num_threads(2)
        with cores_left_by(1):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "workers", "threads"), [(2, 1, 2), (2, 4, 2), (1, 1, 1), (3, 1, 2), (3, 4, 1)])
def test_two_cores_are_shared_with_the_readers(monkeypatch, cores, workers, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        with cores_left_by(workers):
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("given", [None, "6"])
def test_training_processes_share_the_cores(monkeypatch, given):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        with cores_left_by(1, processes=2):
            assert torch.get_num_threads() == 3
            assert os.environ["OMP_NUM_THREADS"] == (given or "3")
        assert os.environ.get("OMP_NUM_THREADS") == given
    finally:
        torch.set_num_threads(before)
