from pathlib import Path

import numpy as np
import pytest
from data_toys import smooth_image, write
from reader_toys import write_ome_zarr
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.data.readers import open_image
from foveate.data.readers.base import Address, redacted
from foveate.errors import ImageReadError
from foveate.geometry import Size, Window
from server_toys import served

PIXELS = smooth_image(3, 1024, 1024, np.uint8)
COG = {"driver": "COG", "blocksize": 128, "compress": "deflate", "overview_resampling": "average"}


@pytest.fixture
def cog(tmp_path):
    return write(tmp_path / "a.tif", PIXELS, **COG)


def test_only_what_is_needed_is_sent(tmp_path, cog):
    with served(tmp_path) as server, open_image(f"{server.url}/a.tif") as reader:
        np.testing.assert_array_equal(reader.read(Window(500, 600, 64, 64)), PIXELS[:, 500:564, 600:664])
        reader.read(Window.of(reader.size), Size(64, 64))
        assert (reader.path.name, reader.path.stem, reader.location) == ("a.tif", "a", f"{server.url}/a.tif")
        assert not reader.path.exists()
        assert 0 < server.sent < cog.stat().st_size / 4
        assert {name for name, _ in server.asked} == {"/a.tif"}


def test_a_url_survives_a_path(tmp_path, cog):
    with served(tmp_path) as server, open_image(Path(f"{server.url}/a.tif")) as reader:
        assert reader.location == f"{server.url}/a.tif"


def test_queries_are_sent_and_not_told(tmp_path, cog):
    with served(tmp_path) as server, open_image(f"{server.url}/a.tif?token=secret") as reader:
        assert "secret" not in f"{reader.location} {reader.path}"
        with pytest.raises(ImageReadError) as caught:
            open_image(f"{server.url}/b.tif?token=secret")
        assert "secret" not in str(caught.value)


def test_zarr(tmp_path):
    pytest.importorskip("aiohttp")
    write_ome_zarr(tmp_path / "a.zarr", [PIXELS, PIXELS[:, ::2, ::2]])
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with served(tmp_path) as server:
        with open_image(f"{server.url}/a.zarr") as reader:
            np.testing.assert_array_equal(reader.read(Window(500, 600, 64, 64)), PIXELS[:, 500:564, 600:664])
            assert 0 < server.sent < total / 4
        with pytest.raises(ImageReadError, match=r"no Zarr array or group at http"):
            open_image(f"{server.url}/b.zarr")


def test_a_remote_png_is_decoded_once(tmp_path):
    write(tmp_path / "a.png", PIXELS, driver="PNG")
    with served(tmp_path) as server, open_image(f"{server.url}/a.png") as reader:
        assert not reader.random_access
        reader.read(Window(0, 0, 9, 9))
        asked = len(server.asked)
        np.testing.assert_array_equal(reader.read(Window(500, 600, 64, 64)), PIXELS[:, 500:564, 600:664])
        assert len(server.asked) == asked


@pytest.mark.parametrize("name", ["none.tif", "none.png"])
def test_missing(tmp_path, name):
    with served(tmp_path) as server, pytest.raises(ImageReadError, match=rf"no image at http://.*/{name}.*404"):
        open_image(f"{server.url}/{name}")


def test_a_server_that_fails_later(tmp_path, cog, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with served(tmp_path) as server, open_image(f"{server.url}/a.tif?secret") as reader:
        server.broken.add("/a.tif")
        with pytest.raises(ImageReadError, match=r"could not read http://.*a\.tif at Window\(top=900") as caught:
            reader.read(Window(900, 900, 64, 64))
        assert "secret" not in str(caught.value)


def test_object_stores_are_gdals(tmp_path, cog, monkeypatch):
    with served(tmp_path.parent) as server:
        monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
        for name, value in (("HTTPS", "NO"), ("VIRTUAL_HOSTING", "FALSE"), ("NO_SIGN_REQUEST", "YES")):
            monkeypatch.setenv(f"AWS_{name}", value)
        with open_image(f"s3://{tmp_path.name}/a.tif") as reader:
            assert reader.location == f"s3://{tmp_path.name}/a.tif"
            np.testing.assert_array_equal(reader.read(Window(5, 6, 7, 8)), PIXELS[:, 5:12, 6:14])


def test_info_of_a_url(tmp_path, cog):
    with served(tmp_path) as server:
        result = CliRunner().invoke(app, ["info", f"{server.url}/a.tif"])
    assert result.exit_code == 0, result.output
    assert "1024 x 1024" in result.output


def test_what_others_say_of_urls_is_redacted():
    text = "'/vsicurl/https://me:pw@h.org/a.tif?k=secret' failed, c.tif?x=2020-01-01T00:00 was not. Why? No."
    assert redacted(text) == "'/vsicurl/https://h.org/a.tif' failed, c.tif was not. Why? No."


@pytest.mark.parametrize(
    ("given", "text", "gdal", "shown", "path"),
    [
        ("a/../b.tif", "a/../b.tif", "a/../b.tif", "a/../b.tif", "a/../b.tif"),
        (Path("https:/h.org/a.tif"), "https://h.org/a.tif", "/vsicurl/https://h.org/a.tif", None, "https:/h.org/a.tif"),
        ("https://me:pw@h.org/a.tif?k=1", None, "/vsicurl/https://me:pw@h.org/a.tif?k=1", "https://h.org/a.tif", None),
        ("s3://bucket/x/a.tif", None, "/vsis3/bucket/x/a.tif", None, "s3:/bucket/x/a.tif"),
        ("gs://bucket/a.tif", None, "/vsigs/bucket/a.tif", None, None),
        ("az://bucket/a.tif", None, "/vsiaz/bucket/a.tif", None, None),
        ("file:///data/my%20slide.svs", "/data/my slide.svs", "/data/my slide.svs", None, "/data/my slide.svs"),
        ("/vsizip/x.zip/a.tif", None, None, None, "/vsizip/x.zip/a.tif"),
    ],
)
def test_locations(given, text, gdal, shown, path):
    place = Address.of(given)
    assert place.text == (text or given)
    assert gdal is None or place.gdal == gdal
    assert str(place) == (shown or place.text)
    assert path is None or place.path == Path(path)
    assert Address.of(place.text) == place
    assert place.is_remote == ("://" in place.text)
