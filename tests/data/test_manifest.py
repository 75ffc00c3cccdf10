import json

import pytest
from data_toys import data_config, write_data_set
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.config import SplitConfig
from foveate.data.manifest import assign_splits, load_samples
from foveate.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "set", size=(8, 8))


def test_folder(folder):
    samples = load_samples(data_config(folder))
    assert [sample.name for sample in samples] == ["im0", "im1", "im2"]
    assert samples[0].mask == folder / "masks" / "im0.png"
    assert {sample.split for sample in samples} == {"train"}


def test_other_files_do_no_harm(folder):
    (folder / "images" / ".DS_Store").touch()
    (folder / "images" / "im0.png.aux.xml").touch()
    assert len(load_samples(data_config(folder))) == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".odgt"])
def test_manifests(folder, suffix):
    rows = [{"image": f"set/images/im{i}.png", "mask": f"set/masks/im{i}.png"} for i in range(3)]
    path = folder.parent / f"list{suffix}"
    if suffix == ".csv":
        path.write_text("image,mask,split\n" + "\n".join(f"{r['image']},{r['mask']},val" for r in rows))
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({**r, "split": "val"}) for r in rows))
    else:
        names = {"image": "fpath_img", "mask": "fpath_segm"}
        path.write_text("\n".join(json.dumps({names[k]: v for k, v in r.items()} | {"width": 8}) for r in rows))
    samples = load_samples(
        data_config(folder.parent, manifest=path.name, split={} if suffix != ".odgt" else {"val": ["im0"]})
    )
    assert [s.split for s in samples] == (["val", "train", "train"] if suffix == ".odgt" else ["val"] * 3)
    assert all(s.mask is not None and s.mask.exists() for s in samples)


def test_the_original_lists_load_as_they_are(folder):
    """One list a split, paths relative to the data's root, an image that is listed twice."""

    def line(i):
        return f'{{"fpath_img": "images/im{i}.png", "fpath_segm": "masks/im{i}.png", "width": 8, "height": 8}}'

    (folder / "lists").mkdir()
    (folder / "lists/train.odgt").write_text(f"{line(0)}\n{line(1)}\n{line(0)}\n")
    (folder / "lists/val.odgt").write_text(line(2))
    manifest = {"train": "lists/train.odgt", "val": "lists/val.odgt"}
    config = data_config(folder, manifest=manifest)
    assert [(s.name, s.split) for s in load_samples(config)] == [("im0", "train"), ("im1", "train"), ("im2", "val")]
    assert type(config).parse(config.tree()) == config
    (folder / "lists/val.odgt").write_text(line(1))
    with pytest.raises(DatasetError, match=r"twice: im1"):
        load_samples(config)


def test_paths_are_looked_for_beside_the_manifest_then_in_root(folder):
    (folder / "lists").mkdir()
    (folder / "lists" / "a.csv").write_text("image,mask\nimages/im0.png,masks/im0.png\n")
    (sample,) = load_samples(data_config(folder, manifest="lists/a.csv"))
    assert sample.image == folder / "images" / "im0.png"


def test_one_of_a_hundred_masks_is_missing(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for i in range(100):
            (tmp_path / name / f"im{i:03}.png").touch()
    (tmp_path / "masks" / "im042.png").unlink()
    with pytest.raises(DatasetError, match="1 of 100 images have no mask: im042"):
        load_samples(data_config(tmp_path))
    assert len(load_samples(data_config(tmp_path), need_masks=False)) == 100
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="im004 and 95 more"):
        load_samples(data_config(tmp_path))


def test_folder_errors(tmp_path, folder):
    with pytest.raises(DatasetError, match=r"no folder .*nowhere"):
        load_samples(data_config(tmp_path, folder="nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no folder .*images"):
        load_samples(data_config(tmp_path, folder="empty"))
    (tmp_path / "empty" / "images").mkdir()
    with pytest.raises(DatasetError, match="no image in"):
        load_samples(data_config(tmp_path, folder="empty"))
    (folder / "images" / "im0.jpg").touch()
    with pytest.raises(DatasetError, match=r"different file stems.*im0"):
        load_samples(data_config(folder))
    (folder / "images" / "im0.jpg").unlink()
    (folder / "masks" / "im0.tif").touch()
    with pytest.raises(DatasetError, match="masks must have different"):
        load_samples(data_config(folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,mask\n", "names no image"),
        ("a.csv", "picture,mask\na.png,b.png\n", "entry 1: no 'image'"),
        ("a.csv", "image,mask,split\na.png,b.png,training\n", "split 'training'; allowed are train, val, test"),
        ("a.csv", "image,mask\na.png,b.png\n", "2 files are not there"),
        ("a.jsonl", "no json", "neither CSV"),
        ("a.jsonl", "[1]", "must be a JSON object"),
    ],
)
def test_manifest_errors(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_samples(data_config(tmp_path, manifest=name))


def test_missing_manifest(tmp_path):
    with pytest.raises(DatasetError, match="no manifest at"):
        load_samples(data_config(tmp_path, manifest="a.csv"))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val": ["c", "x"]}, "not there: x"),
        ({"val": ["a"], "test": ["a"]}, "listed in both val and test"),
        ({"train": ["a"]}, "in no list: b, c"),
    ],
)
def test_split_errors(split, message):
    with pytest.raises(DatasetError, match=message):
        assign_splits(["a", "b", "c"], SplitConfig.parse(split))


names = st.lists(st.text("abcdef", min_size=1, max_size=6), unique=True, max_size=30)


@given(names, st.integers(0, 5), st.randoms())
def test_a_draw_depends_on_the_name_alone(stems, seed, random):
    config = SplitConfig(val_fraction=0.3, test_fraction=0.2, seed=seed)
    splits = assign_splits(stems, config)
    assert set(splits) == set(stems)
    random.shuffle(stems)
    part = stems[: len(stems) // 2]
    assert assign_splits(part, config) == {name: splits[name] for name in part}


def test_shares_of_draws():
    splits = assign_splits([f"im{i}" for i in range(4000)], SplitConfig(val_fraction=0.3, test_fraction=0.2))
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert counts == pytest.approx([2000, 1200, 800], abs=120)
