"""Files that lack coarse levels get some: the same pixels, made once, in bounded room."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from data_toys import footprint_means, smooth_image, write

from foveate.data import pyramids
from foveate.data.images import ReaderCache
from foveate.data.pyramids import OverviewedReader, with_overviews
from foveate.data.readers import ArrayReader, open_image
from foveate.errors import ImageReadError
from foveate.geometry import Size, Window

HEIGHT, WIDTH = 611, 823


@pytest.fixture
def small(monkeypatch):
    """Images of some thousand pixels count as large."""
    monkeypatch.setattr(pyramids, "_MOST_PIXELS", 10_000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path):
    pixels = smooth_image(3, HEIGHT, WIDTH, np.uint8)
    return write(tmp_path / "a.tif", pixels, driver="GTiff", tiled=True, blockxsize=64, blockysize=64), pixels


def test_coarse_levels_show_the_same(small, cache, image):
    path, pixels = image
    with with_overviews(open_image(path)) as reader:
        assert isinstance(reader, OverviewedReader)
        assert reader.levels == (Size(HEIGHT, WIDTH), Size(153, 206))
        assert reader.size == Size(HEIGHT, WIDTH)
        for window, size in [
            (Window(0, 0, HEIGHT, WIDTH), Size(38, 51)),
            (Window(0, 0, 600, 800), Size(75, 100)),
            (Window(40, 80, 320, 480), Size(80, 120)),
            (Window(16, 8, 100, 100), None),
        ]:
            shape = size or window.size
            part = pixels[:, *window.within(Window(0, 0, HEIGHT, WIDTH))]
            error = np.abs(reader.read(window, size) - footprint_means(part, shape.height, shape.width))
            assert error.max() <= (0 if size is None else 2)  # grey levels: rounded once a level
    assert len(list(cache.glob("*.tif"))) == 1


def test_they_are_made_once_and_read_from_then_on(small, cache, image, monkeypatch):
    path, _ = image
    with with_overviews(open_image(path)) as reader:
        assert not cache.exists()  # opening costs nothing
        first = reader.read(Window(0, 0, 600, 800), Size(60, 80))
    monkeypatch.setattr(OverviewedReader, "_make", None)
    with with_overviews(open_image(path)) as reader:
        monkeypatch.setattr(reader._inner, "_read_level", _only_samples(reader._inner._read_level))
        assert np.array_equal(reader.read(Window(0, 0, 600, 800), Size(60, 80)), first)


def _only_samples(read):
    def guarded(level, window):
        assert max(window.height, window.width) <= 64
        return read(level, window)

    return guarded


def test_a_file_that_changed_gets_others(small, cache, image):
    path, pixels = image
    for values in (pixels, 255 - pixels):
        write(path, values, driver="GTiff", tiled=True, blockxsize=64, blockysize=64)
        with with_overviews(open_image(path)) as reader:
            found = reader.read(Window(0, 0, 600, 800), Size(60, 80))
        assert np.abs(found - footprint_means(values[:, :600, :800], 60, 80)).max() <= 2
    assert len(list(cache.glob("*.tif"))) == 2


def test_where_nothing_can_be_kept_they_are_made_for_now(small, image, monkeypatch, tmp_path):
    path, pixels = image
    (tmp_path / "file").write_text("no folder")
    for place in ("", str(tmp_path / "file")):
        monkeypatch.setenv("FOVEATE_CACHE", place)
        reader = with_overviews(open_image(path))
        found = reader.read(Window(0, 0, 600, 800), Size(60, 80))
        assert np.abs(found - footprint_means(pixels[:, :600, :800], 60, 80)).max() <= 2
        temporary = reader._temporary.name
        assert Path(temporary).is_dir()
        reader.close()
        assert not Path(temporary).exists()


def test_files_with_enough_levels_and_masks_stay_as_they_are(small, cache, tmp_path, image):
    levels = write(tmp_path / "b.tif", image[1], driver="GTiff", tiled=True, overviews=(2, 4, 8))
    labels = write(tmp_path / "c.tif", image[1][:1], driver="GTiff")
    wide = write(tmp_path / "d.png", image[1], driver="PNG")
    for path in (levels, labels, wide):
        with open_image(path) as reader:
            assert with_overviews(reader) is reader
    in_memory = ArrayReader(image[1])
    assert with_overviews(in_memory) is in_memory


def test_a_gap_between_levels_is_filled(small, cache, tmp_path, image):
    path = write(tmp_path / "b.tif", image[1], driver="GTiff", tiled=True, overviews=(8,))
    with with_overviews(open_image(path)) as reader:
        assert reader.levels[1] == Size(153, 206)


def test_a_torn_tile_costs_only_what_shows_it(small, cache, image, monkeypatch):
    path, pixels = image
    reader = with_overviews(open_image(path))
    read, torn = reader._inner._read_level, Window(300, 400, 4, 4)

    def failing(level, window):
        if window.intersection(torn):
            raise ImageReadError("torn")
        return read(level, window)

    monkeypatch.setattr(reader._inner, "_read_level", failing)
    found = reader.read(Window(0, 0, 240, 320), Size(60, 80))
    assert np.abs(found - footprint_means(pixels[:, :240, :320], 60, 80)).max() <= 1
    with pytest.raises(ImageReadError):
        reader.read(Window(200, 300, 240, 320), Size(60, 80))
    assert not list(cache.glob("*.tif"))


def test_the_cache_is_bounded(small, cache, image, tmp_path, monkeypatch):
    monkeypatch.setattr(pyramids, "CACHE_BYTES", 1)
    for seed in range(3):
        path = write(tmp_path / f"{seed}.tif", smooth_image(3, 300, 300, np.uint8, seed), driver="GTiff", tiled=True)
        with with_overviews(open_image(path)) as reader:
            reader.read(Window(0, 0, 300, 300), Size(30, 30))
    assert len(list(cache.glob("*.tif"))) == 1


def _read_wide(path, folder, found):
    os.environ["FOVEATE_CACHE"] = str(folder)
    pyramids._MOST_PIXELS = 10_000
    with with_overviews(open_image(path)) as reader:
        made = OverviewedReader._make

        def slow(self, target):
            found.put("made")
            time.sleep(0.3)
            return made(self, target)

        OverviewedReader._make = slow
        found.put(int(reader.read(Window(0, 0, 600, 800), Size(60, 80)).sum()))


def test_processes_wait_for_the_one_that_makes_them(small, cache, image):
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    workers = [context.Process(target=_read_wide, args=(image[0], cache, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [found.get(timeout=60) for _ in range(4)]
    for worker in workers:
        worker.join()
    assert results.count("made") == 1
    assert len({value for value in results if value != "made"}) == 1


def test_threads_share_them_too(small, cache, image):
    readers, sums = [with_overviews(open_image(image[0])) for _ in range(3)], []

    def read(reader):
        sums.append(int(reader.read(Window(0, 0, 600, 800), Size(60, 80)).sum()))

    threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sums) == 3
    assert len(set(sums)) == 1
    for reader in readers:
        reader.close()


def test_the_cache_of_readers_gives_them_on_demand(small, cache, image):
    plain, given = ReaderCache(10**9), ReaderCache(10**9, overviews=True)
    assert len(plain.get(image[0]).levels) == 1
    assert len(given.get(image[0]).levels) == 2
    plain.close()
    given.close()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_in_the_cache_is_made_anew(small, cache, image, damage):
    path, _ = image
    with with_overviews(open_image(path)) as reader:
        right = reader.read(Window(0, 0, 600, 800), Size(60, 80))
    (file,) = cache.glob("*.tif")
    whole = file.read_bytes()
    place = len(whole) // 2
    flipped = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
    changed = {"flipped": flipped, "cut": whole[:-9], "empty": b""}
    file.unlink()
    file.write_bytes(changed[damage])
    pyramids._known_whole.clear()
    with with_overviews(open_image(path)) as reader:
        assert np.array_equal(reader.read(Window(0, 0, 600, 800), Size(60, 80)), right)
    assert file.read_bytes() == whole


def test_the_making_ends_when_nobody_waits_and_leaves_nothing(small, cache, image):
    path, _ = image
    with with_overviews(open_image(path), lambda: True) as reader, pytest.raises(CancelledError):
        reader.read(Window(0, 0, HEIGHT, WIDTH), Size(38, 51))
    assert not [file for file in cache.iterdir() if file.suffix != ".lock"]
    with with_overviews(open_image(path)) as reader:
        assert reader.read(Window(0, 0, HEIGHT, WIDTH), Size(38, 51)).shape == (3, 38, 51)
