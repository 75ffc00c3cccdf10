import torch

from foveate.training.cores import cores_left_by


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
