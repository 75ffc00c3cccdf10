import json

import pytest
from data_toys import data_config, write_data_set
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.manifest import load_samples, masks_without_image
from foveate.data.sections import SplitConfig, assign_splits
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
    world = "im0.tfw im0.png.ovr im1.PGW im2.xml a.xmp"
    for name in f"{world} Thumbs.db desktop.ini ~im2.png im2.png~ ._im0.png readme.txt".split():
        (folder / "images" / name).touch()
        (folder / "masks" / name).touch()
    (folder / "images" / "im0.geojson").touch()
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
    with pytest.raises(DatasetError, match=r"im1 occurs twice"):
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
    with pytest.raises(DatasetError, match=r"paired by file stem.*im0 \(.*im0\.jpg and .*im0\.png\)"):
        load_samples(data_config(folder))
    (folder / "images" / "im0.jpg").unlink()
    (folder / "masks" / "im0.tif").touch()
    with pytest.raises(DatasetError, match="masks are paired by file stem"):
        load_samples(data_config(folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,mask\n", "has no images"),
        ("a.csv", "picture,mask\na.png,b.png\n", "entry 1: no 'image'"),
        ("a.csv", "image,mask,split\na.png,b.png,training\n", "split 'training'; allowed are train, val, test"),
        ("a.csv", "image,mask\na.png,b.png\n", "2 files do not exist"),
        ("a.jsonl", "no json", "neither CSV"),
        ("a.jsonl", "[1]", "must be a JSON object"),
    ],
)
def test_manifest_errors(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_samples(data_config(tmp_path, manifest=name))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("image,mask\nbäume.png,b.png\n".encode("latin-1"), "is not in UTF-8, .*cp1252.* .byte 12"),
        ("image,mask\na.png,b.png\n".encode("utf-16"), "is not in UTF-8, but in UTF-16 .*: save it as UTF-8"),
        ("image,mask\na.png,b.png\n".encode("utf-16-le"), "holds zero bytes, as text in UTF-16"),
        (b"image,mask\na,b.png,m.png\n", "entry 1 has more columns than the header"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_manifests_of_another_encoding(tmp_path, data, message, name):
    (tmp_path / name).write_bytes(data)
    if "columns" in message and name != "a.csv":
        message = "neither CSV"
    with pytest.raises(DatasetError, match=rf"{name}.* ?{message}"):
        load_samples(data_config(tmp_path, manifest=name))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_spreadsheets(folder, encoding, divider):
    (folder / "images" / "im0.png").rename(folder / "images" / "bäume, groß.png")
    rows = [("Image", "Mask ", "split"), ('"images/bäume, groß.png"', "masks/im0.png", "val")]
    text = "\r\n".join(divider.join(row) for row in rows)
    (folder / "a.csv").write_bytes(text.encode(encoding))
    (sample,) = load_samples(data_config(folder, manifest="a.csv"))
    assert (sample.name, sample.mask.name, sample.split) == ("bäume, groß", "im0.png", "val")


def test_paths_as_windows_writes_them(folder):
    (folder / "a.csv").write_text("image,mask\nimages\\im0.png,masks\\im0.png\n")
    (sample,) = load_samples(data_config(folder, manifest="a.csv"))
    assert (sample.name, sample.image, sample.mask.name) == ("im0", folder / "images" / "im0.png", "im0.png")


@pytest.mark.parametrize("key", ["image", "mask", "roi"])
@pytest.mark.parametrize("value", [3, ["a.png"], {"a": 1}, True])
def test_what_is_no_name_is_refused(folder, key, value):
    row = {"image": "images/im0.png", "mask": "masks/im0.png", "split": "train", key: value}
    (folder / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=rf"entry 1: {key} is .*, which is not a file name"):
        load_samples(data_config(folder, manifest="a.jsonl"))


def test_regions_of_one_image(folder):
    """Rows of one image, each with a region: the left trains, the right validates."""
    for name in ("left", "right"):
        (folder / f"{name}.geojson").write_text("{}")
    rows = ["image,mask,split,roi", *(f"images/im0.png,masks/im0.png,{s},{r}.geojson" for s, r in REGIONS)]
    (folder / "a.csv").write_text("\n".join([*rows, "images/im1.png,masks/im1.png,train,left.geojson"]))
    samples = load_samples(data_config(folder, manifest="a.csv"))
    assert [(s.name, s.split, s.roi.stem) for s in samples] == [
        ("im0-left", "train", "left"),
        ("im0-right", "val", "right"),
        ("im1", "train", "left"),
    ]
    for same in ("images/im0.png,masks/im0.png,val,left.geojson", "images/im0.png,masks/im0.png,val,"):
        (folder / "a.csv").write_text("\n".join([rows[0], rows[1], same]))
        with pytest.raises(DatasetError, match=r"im0 occurs twice \(.*im0\.png, in train, val\)"):
            load_samples(data_config(folder, manifest="a.csv"))


REGIONS = [("train", "left"), ("val", "right")]


def test_images_of_one_name_in_several_folders(tmp_path):
    """Explicit pairs need no equal stems, and no different ones."""
    rows = ["image,mask"]
    for place in ("site1/may", "site1/june", "site2/may"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("rgb.png", "truth.png"):
            (tmp_path / place / name).touch()
        rows.append(f"{place}/rgb.png,{place}/truth.png")
    (tmp_path / "a.csv").write_text("\n".join(rows))
    samples = load_samples(data_config(tmp_path, manifest="a.csv", split={"val": ["june-rgb"]}))
    assert [(s.name, s.split) for s in samples] == [
        ("june-rgb", "val"),
        ("site1-may-rgb", "train"),
        ("site2-may-rgb", "train"),
    ]
    assert all(s.mask.parent == s.image.parent for s in samples)
    (tmp_path / "site1/may/rgb.tif").touch()
    (tmp_path / "a.csv").write_text("\n".join([*rows[:2], "site1/may/rgb.tif,site1/may/truth.png"]))
    with pytest.raises(
        DatasetError, match=r"different file stems, but two have rgb \(.*may/rgb\.png and .*may/rgb\.tif\)"
    ):
        load_samples(data_config(tmp_path, manifest="a.csv"))


def test_the_list_of_the_original_demonstration(tmp_path):
    """One image, whose list lies in the folder that its paths begin with, to train and to validate on."""
    place = tmp_path / "CITYSCAPE_single_example"
    place.mkdir()
    image, mask = (f"munster_000144_000019_{kind}.png" for kind in ("leftImg8bit", "gtFine_labelIds"))
    line = {"fpath_img": f"{place.name}/{image}", "fpath_segm": f"{place.name}/{mask}", "width": 2048, "height": 1024}
    (place / "train1_validation_cityscape.odgt").write_text(json.dumps(line) + "\n")
    for name in (image, mask):
        (place / name).touch()
    for root in (tmp_path, place, tmp_path / "elsewhere"):
        where = str(place / "train1_validation_cityscape.odgt")
        samples = load_samples(data_config(root, manifest={"train": where, "val": where}))
        assert [(s.name, s.split, s.image.parent.name) for s in samples] == [
            ("munster_000144_000019_leftImg8bit", split, place.name) for split in ("train", "val")
        ]
        assert {s.mask.name for s in samples} == {mask}


def test_ome_tiffs_are_paired_with_masks_of_any_kind(tmp_path):
    for kind, names in {"images": ("a.ome.tif", "b.tif"), "masks": ("a.png", "b.ome.tif")}.items():
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).touch()
    samples = load_samples(data_config(tmp_path))
    assert [(s.image.name, s.mask.name) for s in samples] == [("a.ome.tif", "a.png"), ("b.tif", "b.ome.tif")]
    assert masks_without_image(data_config(tmp_path)) == []


def test_masks_that_no_image_is_called_by_are_named(folder):
    (folder / "masks" / "im0.png").rename(folder / "masks" / "im0_mask.png")
    with pytest.raises(DatasetError, match=r"1 of 3 images have no mask: im0; masks without .*: im0_mask\.png"):
        load_samples(data_config(folder))
    assert masks_without_image(data_config(folder)) == ["im0_mask.png"]


def test_missing_manifest(tmp_path):
    with pytest.raises(DatasetError, match="no manifest at"):
        load_samples(data_config(tmp_path, manifest="a.csv"))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val": ["c", "x"]}, "do not exist: x"),
        ({"val": ["a"], "test": ["a"]}, "listed in both val and test"),
        ({"train": ["a"]}, "in no list: b, c"),
    ],
)
def test_split_errors(split, message):
    with pytest.raises(DatasetError, match=message):
        assign_splits(["a", "b", "c"], SplitConfig.parse(split))


names = st.lists(st.text("abcdef", min_size=1, max_size=6), unique=True, max_size=30)


@given(names, st.integers(0, 5), st.randoms())
def test_a_draw_depends_on_the_names_alone(stems, seed, random):
    config = SplitConfig(val=0.3, test=0.2, seed=seed)
    splits = assign_splits(stems, config)
    assert set(splits) == set(stems)
    random.shuffle(stems)
    assert assign_splits(stems, config) == splits
    more = assign_splits([*stems, "another"], config)
    assert sum(more[name] != splits[name] for name in stems) <= 2


@given(st.integers(1, 60), st.sampled_from([0.0, 0.05, 0.2, 0.5]), st.sampled_from([0.0, 0.1, 0.45]), st.integers(0, 3))
def test_a_count_is_drawn(count, val, test, seed):
    """To the nearest image, one at least, and one is left to train on; validation comes first where there are few."""
    splits = assign_splits(map(str, range(count)), SplitConfig(val=val, test=test, seed=seed))
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert sum(counts) == count
    assert counts[0] >= 1
    if count >= 3:
        wanted = [max(1, round(share * count)) if share else 0 for share in (val, test)]
        assert counts[1:] == [wanted[0], min(wanted[1], count - 1 - wanted[0])]
    elif count == 2:
        assert counts[1:] == [bool(val), bool(test) and not val]


def test_shares_of_draws():
    splits = assign_splits([f"im{i}" for i in range(4000)], SplitConfig(val=0.3, test=0.2))
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert counts == [2000, 1200, 800]
