"""Runs go to the hub and come back; the hub is a local stand-in."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import foveate
from foveate.errors import ConfigError, FoveateError
from foveate.runs import share as hub
from foveate.runs.config import RunConfig
from toys import make_data_set, shapes, toy_config

huggingface_hub = pytest.importorskip("huggingface_hub")


class StandIn(BaseHTTPRequestHandler):
    """As much of the hub's interface as pushing and loading need; files are kept in memory."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, tree, code=200, headers=()):
        body = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        models = self.server.models
        if self.path == "/api/repos/create":
            tree = json.loads(body)
            name = f"{tree['organization']}/{tree['name']}" if tree.get("organization") else tree["name"]
            models.setdefault(name, {})
            return self.answer({"url": f"{self.server.url}/{name}"})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer({"files": files})
        if "/commit/" not in self.path:  # the card is checked
            return self.answer({"errors": [], "warnings": []})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                models[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.url}/{name}/commit/0"})

    def do_GET(self):
        parts = self.path.split("?")[0].split("/")
        if self.path.startswith("/api/models/"):
            files = self.server.models.get("/".join(parts[3:5]))
            if files is None:
                return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if "/tree/" in self.path:
                listed = [{"type": "file", "path": file, "size": len(files[file]), "oid": "0"} for file in files]
                return self.answer(listed)
            return self.answer(
                {"id": "/".join(parts[3:5]), "sha": "0" * 40, "siblings": [{"rfilename": file} for file in files]}
            )
        content = self.server.models.get("/".join(parts[1:3]), {}).get("/".join(parts[5:]))
        if content is None:
            return self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha1(content).hexdigest()
        return self.answer(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": "0" * 40})

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def endpoint(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.models, server.url = {}, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    make_data_set(root / "toy")
    run = foveate.train(RunConfig.parse(toy_config(root)), root / "run", overrides=["training.steps=3"], progress=False)
    evaluation = foveate.evaluate(run, "test")
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation" / "test.json").write_text(json.dumps(evaluation.tree()))
    return run


def test_what_is_pushed_comes_back_and_says_the_same(run, endpoint, tmp_path):
    address = hub.push(run, "ada/vessels", endpoint=endpoint.url)
    assert address == f"{endpoint.url}/ada/vessels"
    files = endpoint.models["ada/vessels"]
    names = sorted(name for name in files if not name.startswith("."))
    assert names == ["README.md", "config.yaml", "model.safetensors"]
    folder = hub.fetch("hf://ada/vessels", endpoint=endpoint.url)
    loaded = foveate.load(folder, device="cpu")
    image, _ = shapes(9)
    assert np.array_equal(loaded.predict(image).probabilities, run.predict(image).probabilities)


def test_nothing_of_this_computer_is_told(run, endpoint):
    hub.push(run, "ada/vessels", endpoint=endpoint.url)
    config = endpoint.models["ada/vessels"]["config.yaml"].decode()
    assert str(run.path.parent) not in config
    assert "val: null" in config


def test_the_card_has_classes_scores_and_how_to_load(run, endpoint):
    hub.push(run, "ada/vessels", endpoint=endpoint.url)
    card = endpoint.models["ada/vessels"]["README.md"].decode()
    assert "library_name: foveate" in card.split("---")[1]
    assert 'foveate.load("hf://ada/vessels")' in card
    assert "| disc |" in card
    assert "## Test images" in card


def test_names_that_are_none_and_models_that_are_not_there(run, endpoint):
    with pytest.raises(ConfigError, match="is not the name of a model"):
        hub.fetch("hf://vessels", endpoint=endpoint.url)
    with pytest.raises(ConfigError, match="is not the name of a model"):
        hub.push(run, "../vessels", endpoint=endpoint.url)
    with pytest.raises(FoveateError, match="could not load hf://ada/unknown"):
        hub.fetch("hf://ada/unknown", endpoint=endpoint.url)
    endpoint.models["ada/other"] = {"README.md": b"something else"}
    with pytest.raises(ConfigError, match=r"is not a Foveate run: it has no config\.yaml and no model\.safetensors"):
        hub.fetch("hf://ada/other", endpoint=endpoint.url)


def test_a_hub_that_does_not_answer_is_an_error_in_one_line(run):
    with pytest.raises(FoveateError, match="could not push") as raised:
        hub.push(run, "ada/vessels", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(raised.value)
