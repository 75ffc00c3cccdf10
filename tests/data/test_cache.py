import os
import pickle

import numpy as np
import pytest
from data_toys import smooth_image, write

from foveate.data.images import ReaderCache
from foveate.geometry import Window

BYTES = 40 * 50 * 3 * 4 // 3


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path / f"{i}.png", smooth_image(3, 40, 50, np.uint8), driver="PNG") for i in range(4)]


def test_keeps_the_last_used_within_its_bytes(paths):
    cache = ReaderCache(max_bytes=2 * BYTES)
    first, second = cache.get(paths[0]), cache.get(paths[1])
    assert cache.get(paths[0]) is first
    cache.get(paths[2])
    assert cache.get(paths[0]) is first
    assert cache.get(paths[1]) is not second
    assert second._store is None
    cache.close()


def test_bounds_the_number(paths):
    cache = ReaderCache(max_bytes=10**9, max_open=2)
    first = cache.get(paths[0])
    for path in paths[1:]:
        cache.get(path)
    assert cache.get(paths[0]) is not first


def test_keeps_the_one_in_use_however_large(paths):
    cache = ReaderCache(max_bytes=0)
    assert cache.get(paths[0]) is cache.get(paths[0])


def test_is_empty_in_another_process(paths, monkeypatch):
    cache = ReaderCache(max_bytes=10**9)
    reader = cache.get(paths[0])
    reader.read(Window(0, 0, 4, 4))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get(paths[0]) is not reader
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert cache.get(paths[0]) is not reader
