import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors this small are slower on several threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
