"""What is exported says what torch says, and names itself to those who read it."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion
from typer.testing import CliRunner

import foveate
from foveate.build import build_segmenter
from foveate.cli.app import app
from foveate.errors import ConfigError, NetworkError, OutputExistsError
from foveate.networks.cascade import Context, NetworkPerScale
from foveate.patches.scales import assembled
from foveate.runs import share as module
from foveate.runs._exported import ExportedLook
from foveate.runs.config import RunConfig
from foveate.runs.share import check_format, export
from foveate.segmenter import FoveatedSegmenter
from toys import make_data_set, toy_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    make_data_set(root / "toy")
    return root


def run_of(root, estimator=None, **foveation):
    tree = toy_config(root)
    tree["foveation"] |= {"estimator": estimator or {"name": "coarse_first"}, **foveation}
    config = RunConfig.parse(tree)
    torch.manual_seed(0)
    segmenter = build_segmenter(config.foveation, config.network, classes=2, in_channels=3).eval()
    for parameter in segmenter.parameters():  # far from what it is at first, where all probabilities are alike
        parameter.data += 0.05 * torch.randn_like(parameter)
    return foveate.Run(config, segmenter, torch.device("cpu"))


def onnx_says(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


def test_each_look_is_written_and_says_what_predictions_say(root, tmp_path):
    run = run_of(root, tell_scale=True)
    done = export(run, tmp_path / "model.onnx", pixel_size=0.3)
    assert [one.path.name for one in done] == ["model-32px.onnx", "model-64px.onnx"]
    assert all("patches of" in one.compared and one.apart < 1e-4 for one in done)
    raw = torch.randint(0, 256, (3, 3, 32, 32)).float()
    normalised = (raw / 255 - torch.tensor(run.config.data.channel_mean).view(-1, 1, 1)) / torch.tensor(
        run.config.data.channel_std
    ).view(-1, 1, 1)
    for scale, one in enumerate(done):
        weights = torch.eye(2)[scale].expand(3, -1)
        with torch.inference_mode():
            expected = run.segmenter.predict_windows(normalised, weights).softmax(dim=1)
        assert torch.allclose(onnx_says(one.path, raw / 255), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_look_with_a_surround_takes_two_pictures(root, tmp_path, name):
    run = run_of(root, surround=4, tell_scale=True)
    close, _ = export(run, tmp_path / name)
    assert close.apart < 1e-4
    assert "patches of" in close.compared
    (_, middle), (_, around) = run.segmenter.scales.parts(0)
    pictures = [torch.rand(3, 3, side, side) for side in (middle, around)]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (run.config.data.channel_mean, run.config.data.channel_std))
    with torch.inference_mode():
        patches = (assembled(pictures, run.segmenter.scales) - mean) / std
        expected = run.segmenter.predict_windows(patches, torch.eye(2)[:1].expand(3, -1)).softmax(dim=1)
    if close.path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(close.path, providers=["CPUExecutionProvider"])
        fed = {"pixels": pictures[0].numpy(), "around": pictures[1].numpy()}
        found = torch.from_numpy(session.run(None, fed)[0])
        told = {one.key: json.loads(one.value) for one in onnx.load(close.path).metadata_props}["foveate"]
        assert told["around"] == f"the same of the 128 px around the same centre, resampled to {around} px"
        tile = {one.key: json.loads(one.value) for one in onnx.load(close.path).metadata_props}["tile_size"]
        assert tile == middle
    else:
        found = torch.export.load(close.path).module()(*pictures)
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_metadata_is_what_deepness_reads(root, tmp_path):
    run = run_of(root)
    (done,) = export(run, tmp_path / "model.onnx", view=64, pixel_size=0.3)
    assert done.path.name == "model.onnx"
    model = onnx.load(done.path)
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert found["model_type"] == "Segmentor"
    assert found["class_names"] == {"0": "ground", "1": "disc"}
    assert found["resolution"] == pytest.approx(60)  # centimetres: 0.3 m, two pixels of the image in one of the patch
    assert (found["tile_size"], found["tiles_overlap"]) == (32, 25)
    assert found["foveate"]["scale"] == 255
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 32, 32]
    assert session.get_outputs()[0].shape[1:] == [2, 32, 32]
    assert len(session.get_inputs()) == len(session.get_outputs()) == 1


def test_a_program_of_torch_export(root, tmp_path):
    run = run_of(root)
    (path,) = run.export(tmp_path / "model.pt2", view=32)
    pixels = torch.rand(2, 3, 32, 32)
    texts = {"foveate.json": ""}
    module_ = torch.export.load(path, extra_files=texts).module()
    with torch.inference_mode():
        assert torch.allclose(module_(pixels), ExportedLook(run, 32)(pixels), atol=1e-5)
    assert json.loads(texts["foveate.json"])["class_names"]["1"] == "disc"


def test_of_a_cascade_the_widest_look_is_written_alone_where_asked_for(root, tmp_path):
    run = run_of(root, {"name": "cascade"})
    (done,) = export(run, tmp_path / "model.onnx", view=64)
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["pixels"]
    assert [one.name for one in session.get_outputs()] == ["probabilities"]
    with pytest.raises(ConfigError, match="no look of 16 px can be exported; there are 32, 64"):
        export(run, tmp_path / "closer.pt2", view=16)


@pytest.mark.parametrize("share", [False, True])
def test_the_looks_of_a_cascade_hand_on_what_they_see(root, tmp_path, share):
    """Chained by hand in onnxruntime, at another batch size, three looks say what the cascade says."""
    run = run_of(root, {"name": "cascade", "share": share}, fields_of_view=[32, 64, 128])
    done = export(run, tmp_path / "model.onnx")
    assert [one.path.name for one in done] == ["model-32px.onnx", "model-64px.onnx", "model-128px.onnx"]
    sessions = [onnxruntime.InferenceSession(one.path, providers=["CPUExecutionProvider"]) for one in done]
    pixels, corners = torch.rand(3, 2, 3, 32, 32), torch.tensor([[0.0, 0.5], [0.25, 0.125]])
    data = run.config.data
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.channel_mean, data.channel_std))
    context, given = None, {}
    for scale in (2, 1, 0):
        with torch.inference_mode():
            seen = run.segmenter.look((pixels[scale] - mean) / std, scale, context)
        found = sessions[scale].run(None, {"pixels": pixels[scale].numpy(), **given})
        assert np.allclose(found[0], seen.logits.softmax(dim=1), atol=1e-4)
        context = Context(seen.handed, corners, 0.5)
        given = {"handed": found[-1], "corners": corners.numpy()}
    assert len(found) == 1
    alone = sessions[0].run(None, {"pixels": pixels[0].numpy(), **given | {"handed": 0 * context.seen.numpy()}})
    assert not np.allclose(alone[0], found[0], atol=1e-2)


def test_a_cascade_without_context_is_exported_too(root, tmp_path):
    done = export(run_of(root, {"name": "cascade", "context": "none"}), tmp_path / "model.pt2")
    assert [one.view for one in done] == [32, 64]


def test_a_network_of_each_scale_is_written_for_its_own(root, tmp_path):
    run = run_of(root, {"name": "mixture"})
    networks = [nn.Conv2d(3, 2, 3, padding=1) for _ in range(2)]
    segmenter = FoveatedSegmenter(NetworkPerScale(networks), run.segmenter.scales, estimator=run.segmenter.estimator)
    several = foveate.Run(run.config, segmenter.eval(), run.device)
    done = export(several, tmp_path / "model.pt2")
    pixels = torch.rand(1, 3, 32, 32)
    says = [torch.export.load(one.path).module()(pixels) for one in done]
    assert not torch.allclose(*says)


class Unexportable(nn.Module):
    def forward(self, image):
        return image[:, :2] if float(image.sum()) > 0 else image[:, 1:]


def test_a_network_that_cannot_be_exported_is_named_and_nothing_is_left(root, tmp_path):
    run = run_of(root)
    segmenter = FoveatedSegmenter(Unexportable(), run.segmenter.scales, estimator=run.segmenter.estimator)
    with pytest.raises(NetworkError, match="unet with encoder resnet18 cannot be exported"):
        export(foveate.Run(run.config, segmenter.eval(), run.device), tmp_path / "model.pt2", view=32)
    assert not list(tmp_path.iterdir())


def test_an_export_that_differs_is_refused(root, tmp_path, monkeypatch):
    real = module.exported.program

    def other(look, pixels, path, metadata):
        says = real(look, pixels, path, metadata)
        return lambda batch: says(batch) + 0.01

    monkeypatch.setattr(module.exported, "program", other)
    with pytest.raises(NetworkError, match=r"differ by 0\.01"):
        export(run_of(root), tmp_path / "model.pt2", view=32)
    assert not list(tmp_path.iterdir())


def test_what_is_asked_is_checked_first(root, tmp_path):
    run = run_of(root)
    with pytest.raises(ConfigError, match=r"ends in \.onnx or \.pt2"):
        export(run, tmp_path / "model.pth")
    with pytest.raises(ConfigError, match="there are 32, 64"):
        export(run, tmp_path / "model.onnx", view=128)
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(OutputExistsError):
        export(run, tmp_path / "model.onnx", view=32)


def test_onnx_files_of_an_old_torch_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cpu"))
    with pytest.raises(ConfigError, match=r"torch 2\.7 or newer, this is 2\.6\.0"):
        check_format(Path("model.onnx"))
    check_format(Path("model.pt2"))
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.1+cpu"))
    check_format(Path("model.onnx"))


def test_without_the_images_noise_is_compared_and_said(root, tmp_path):
    run = run_of(root)
    config = run.config.changed(["data.folder=gone"])
    (done,) = export(foveate.Run(config, run.segmenter, run.device), tmp_path / "model.pt2", view=32)
    assert done.compared.startswith("noise")


def test_the_command(root, tmp_path):
    run = foveate.train(
        RunConfig.parse(toy_config(root)), tmp_path / "run", overrides=["training.steps=3"], progress=False
    )
    out = tmp_path / "model.pt2"
    said = CliRunner().invoke(app, ["export", str(run.path), str(out), "--view", "32"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "written to" in said.output
    assert np.isfinite(torch.export.load(out).module()(torch.rand(1, 3, 32, 32)).detach().numpy()).all()
