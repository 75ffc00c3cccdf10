import zipfile

import pytest
import torch
from torch import nn

from foveate.build import check_same_config, load_checkpoint, load_segmenter_state, seal
from foveate.errors import CheckpointError, NetworkError
from foveate.networks.parts import load_encoder_weights


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*none\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_damaged_file(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_truncated_file(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"segmenter.w": torch.zeros(10_000)}, "config": {}}, path)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code in a checkpoint was run",))


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "config": Harmful()}, path)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("state", [{"model": 1}, [1, 2], {"state_dict": {}}])
def test_checkpoint_of_something_else(tmp_path, state):
    path = tmp_path / "other.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="was not written by a Foveate training run: it has no config"):
        load_checkpoint(path)


def test_segmenter_state(tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {"segmenter.a.b": torch.ones(2), "loss.c": torch.ones(1)}, "config": {"x": 1}}, path)
    state = load_segmenter_state(path)
    assert list(state.weights) == ["a.b"]
    assert state.config == {"x": 1}
    torch.save({"state_dict": {"loss.c": torch.ones(1)}, "config": {"x": 1}}, path)
    with pytest.raises(CheckpointError, match="no weights of a segmenter"):
        load_segmenter_state(path)


SAVED = {
    "network": {"architecture": "fpn", "options": {"depth": 5}},
    "foveation": {"fields_of_view": [8, 16]},
    "data": {"classes": [{"name": "a"}], "root": "here"},
}


def test_same_config_passes_and_other_sections_are_free():
    check_same_config(SAVED, SAVED | {"data": {"classes": [{"name": "a"}], "root": "elsewhere"}})
    check_same_config({}, {})


def test_free_paths_need_not_agree():
    current = SAVED | {"foveation": {"fields_of_view": [8, 32]}}
    check_same_config(SAVED, current, free=["foveation.fields_of_view"])
    with pytest.raises(CheckpointError, match="fields_of_view"):
        check_same_config(SAVED, current, free=["foveation"])


def test_every_difference_is_listed():
    current = {
        "network": {"architecture": "unet", "options": {}, "encoder": "resnet18"},
        "foveation": {"fields_of_view": [8, 16]},
        "data": {"classes": [{"name": "b"}]},
    }
    with pytest.raises(CheckpointError) as caught:
        check_same_config(SAVED, current)
    for line in (
        "network.architecture was 'fpn', is now 'unet'",
        "network.options.depth was 5, is now not given",
        "network.encoder was not given, is now 'resnet18'",
        "data.classes was [{'name': 'a'}], is now [{'name': 'b'}]",
    ):
        assert line in str(caught.value)
    assert "fields_of_view" not in str(caught.value)


def flipped(path, offset, bit=1):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.fixture(params=["sealed", "of an earlier version"])
def saved(request, tmp_path):
    """A checkpoint, and its tensor."""
    path, weights = tmp_path / "best.ckpt", torch.rand(50, 40)
    torch.save({"state_dict": {"segmenter.w": weights}, "config": {"x": 1}}, path)
    if request.param == "sealed":
        seal(path)
    return path, weights


def test_a_checkpoint_with_and_without_a_checksum_is_read(saved):
    path, weights = saved
    assert torch.equal(load_checkpoint(path)["state_dict"]["segmenter.w"], weights)
    assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["segmenter.w"], weights)


def test_no_flipped_bit_gives_other_weights(saved):
    path, weights = saved
    whole = path.read_bytes()
    refused = 0
    for offset in range(0, len(whole), 37):
        path.write_bytes(whole)
        flipped(path, offset, offset % 8)
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            refused += 1
            assert "best.ckpt" in str(error)
        else:
            assert torch.equal(state["state_dict"]["segmenter.w"], weights)
            assert state["config"] == {"x": 1}
    assert refused > 8000 / 37  # those of the weights at least


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "best.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="it is compressed, which torch never does"):
        load_checkpoint(path)


def test_what_is_said_of_a_pickle_does_not_tell_how_to_run_it(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "config": Harmful()}, path)
    for load, kind in (
        (load_checkpoint, CheckpointError),
        (lambda file: load_encoder_weights(nn.Conv2d(1, 1, 1), file), NetworkError),
    ):
        with pytest.raises(kind, match="holds Python objects other than tensors") as error:
            load(path)
        assert "weights_only" not in str(error.value)
        assert "trust" not in str(error.value)
