"""The server: what it answers, and all that it refuses."""

import io
import json
import re
import socket

import numpy as np
import pytest
from PIL import Image

from foveate.errors import ConfigError
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.page import MODULES, STATIC, bundle

starlette = pytest.importorskip("starlette", reason="the extra viewer is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from starlette.testclient import TestClient  # noqa: E402

from foveate.viewer.app import (  # noqa: E402
    allowed_hosts,
    is_loopback,
    make_app,
    serve,
)

HERE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def client(toy):
    scene = build_scene(find_inputs([toy.image, toy.first], toy.labels))
    with TestClient(make_app(scene), base_url=HERE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def told(client):
    """The manifest in the page."""
    return json.loads(re.search(r'id="manifest">(.*?)</script>', client.get("/").text, re.DOTALL)[1])


def test_tiles_hold_the_raster(client, told, toy):
    layer = next(item for item in told["layers"] if item["kind"] == "classes")
    answer = client.get(f"/{told['tiles']}{layer['index']}_files/{layer['maxLevel']}/1/0.png".replace("/1/0.", "/1_0."))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), toy.classes[:256, 256:512])


@pytest.mark.parametrize(
    "name",
    [
        "0_files/10/99_0.jpg", "0_files/10/0_99.jpg", "0_files/99/0_0.jpg", "99_files/0/0_0.jpg", "0_files/0/0_0.png",
        "0_files/0/-1_0.jpg", "0_files/0/0_0.gif", "0_files/0/a_0.jpg", "0_files/0/0_0.jpg/x", "0_files/1e1/0_0.jpg",
        "0_files/10/999999999_999999999.jpg", "0_files/10/" + "9" * 5000 + "_0.jpg", "0_files/٣/0_0.jpg",
        "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "0_files/0/0_0.jpg%00", "",
    ],
)  # fmt: skip
def test_bad_tiles_get_a_4xx(client, told, name):
    assert 400 <= client.get(f"/{told['tiles']}{name}").status_code < 500


def test_tiles_of_another_start_are_not_served(client, told):
    assert client.get("/tiles/0000000000000000/0_files/0/0_0.jpg").status_code == 404
    assert client.get(f"/{told['tiles']}0_files/0/0_0.jpg").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2f..%2f..%2fetc/passwd", "/static//etc/passwd",
        "/static/js/", "/static", "/etc/passwd", "/docs", "/static/js/../../app.py", "/openapi.json",
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(client, path):
    answer = client.get(path, follow_redirects=False)
    assert 300 <= answer.status_code < 500
    assert "starlette" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize("query", ["?", "?a=1", "?file=/etc/passwd", "?%00", "?" + "x" * 9000])
def test_query_strings_are_refused(client, query):
    status = client.get(f"/{query}").status_code
    assert status == (200 if query == "?" else 400)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_allowed(client, method):
    assert client.request(method, "/").status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""])
def test_other_names_are_refused_on_loopback(client, host):
    assert client.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9", "LOCALHOST", "[::1]:80"])
def test_own_names_are_answered(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


def test_which_names_belong_to_which_address():
    assert "evil.example" not in allowed_hosts("127.0.0.1")
    assert allowed_hosts("0.0.0.0") == ["*"]
    assert "127.0.0.1" not in allowed_hosts("192.168.1.5")
    assert is_loopback("127.8.8.8")
    assert not is_loopback("example.org")


@pytest.mark.parametrize("path", ["/", "/static/viewer.css", "/nothing", "/?x=1"])
def test_every_answer_keeps_the_browser_to_this_server(client, path):
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_hostile_names_stay_text(client, told):
    html = client.get("/").text
    assert "<b>hostile</b>" not in html
    assert "<b>hostile</b>" in [entry["name"] for entry in told["layers"][2]["classes"]]


def test_damaged_files_are_said_to_be_damaged(toy, tmp_path):
    path = tmp_path / "torn.tif"
    path.write_bytes(toy.image.read_bytes())
    with TestClient(make_app(build_scene(find_inputs([path]))), base_url=HERE, raise_server_exceptions=False) as client:
        data = path.read_bytes()
        path.write_bytes(data[:3000] + bytes(len(data) - 3000))
        path.write_bytes(data[: len(data) // 4])
        tiles = re.search(r'"tiles": "([^"]*)"', client.get("/").text)[1]
        answer = client.get(f"/{tiles}0_files/10/3_2.jpg")
        assert answer.status_code == 500
        assert str(tmp_path) not in answer.text


def test_nothing_is_loaded_from_elsewhere():
    for text in [(STATIC / "index.html").read_text(), (STATIC / "viewer.css").read_text(), bundle()]:
        assert not re.findall(r"""(?:src|href|url|import|fetch)[\s=("']+(?:https?:)?//""", text)


def test_the_bundle_holds_every_module():
    files = {file.name.removesuffix(".js") for file in (STATIC / "js").iterdir()}
    assert files == set(MODULES)
    code = bundle()
    assert not re.findall(r"^\s*(import|export)\b", code, re.MULTILINE)
    # A module is there before those that need it.
    for name in MODULES:
        for needed in re.findall(
            r"= modules\.(\w+);", code.split(f"modules.{name} = (() =>")[1].split("\nmodules.")[0]
        ):
            assert MODULES.index(needed) < MODULES.index(name)


def test_a_port_in_use_is_said(toy):
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigError, match="--port 0"):
        serve(build_scene(find_inputs([toy.image])), port=busy.getsockname()[1], browser=False)
