import os
import signal
import threading
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see foveate.cli.app
os.environ["FOVEATE_CACHE"] = ""  # a user's cache is left alone

import pytest
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=25)
settings.load_profile("default")
torch.set_num_threads(2)

if threading.current_thread() is threading.main_thread():
    # `nohup` and shells that run the tests in the background let signals be ignored; what tests start would inherit it.
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not."""
    root = os.environ.get("FOVEATE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("FOVEATE_DATA is not set to a folder of data sets")
    return Path(root)


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small are slower on several threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
