"""Tiny downloads in the official layouts of the three data sets."""

from pathlib import Path

import numpy as np
from data_toys import read_with_rasterio, smooth_image, write

PALETTE = [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]


def png(path: Path, pixels: np.ndarray) -> Path:
    """(H, W) or (bands, H, W) uint8 as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, pixels.astype(np.uint8).reshape(-1, *pixels.shape[-2:]), driver="PNG")


def picture(path: Path, size=(24, 32), bands=3, seed=0) -> Path:
    """A smooth PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    return write(path, smooth_image(bands, *size, np.uint8, seed), driver=driver)


def ids_of(path: Path) -> np.ndarray:
    """(H, W) of a mask."""
    return read_with_rasterio(path)[0]


def blocks(values, size=(24, 32)) -> np.ndarray:
    """(H, W): the values as upright stripes of nearly equal width."""
    columns = np.arange(size[1]) * len(values) // size[1]
    return np.broadcast_to(np.asarray(values)[columns], size)


def coloured(colours, size=(24, 32)) -> np.ndarray:
    """(3, H, W): the colours as upright stripes."""
    return np.asarray(colours, np.uint8)[blocks(range(len(colours)), size)].transpose(2, 0, 1)


def cityscapes_scene(root: Path, split: str, city: str, number: int, labels: np.ndarray | None) -> None:
    name = f"{city}_{number:06}_000019"
    size = (24, 32) if labels is None else labels.shape
    picture(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", size, seed=number)
    if labels is not None:
        png(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", labels)
        # Beside it in the official package, and not to be taken for it.
        png(root / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png", labels)


def cityscapes(root: Path) -> Path:
    """Two cities to train on, one to validate on, a test image; every label id from 0 to 33 occurs."""
    for number, city in enumerate(("aachen", "bad-honnef")):
        cityscapes_scene(root, "train", city, number, blocks(range(34), (24, 68)))
    cityscapes_scene(root, "val", "munster", 2, blocks([7, 26]))
    cityscapes_scene(root, "test", "berlin", 3, blocks([0]))
    return root


def deepglobe(root: Path, count: int = 6) -> Path:
    """Labelled images as the official training set, and an unlabelled one as of the official validation set."""
    for number in range(count):
        picture(root / "land-train" / f"{number}_sat.jpg", seed=number)
        png(root / "land-train" / f"{number}_mask.png", coloured(PALETTE))
    picture(root / "land-valid" / "900_sat.jpg")
    return root


def gleason2019(root: Path, experts=((1, 2, 3, 4, 5, 6), (2, 4), (5,), ())) -> Path:
    """A core an entry, with the maps of these experts, which all agree."""
    for number, those in enumerate(experts):
        picture(root / "Train Imgs" / f"slide001_core{number:03}.jpg", seed=number)
        for expert in those:
            gleason_map(root, expert, number, blocks([0, 1, 3, 4, 5, 6]))
    return root


def gleason_map(root: Path, expert: int, core: int, values: np.ndarray) -> Path:
    return png(root / f"Maps{expert}_T" / f"slide001_core{core:03}_classimg_nonconvex.png", values)
