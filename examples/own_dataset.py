"""Train and predict on a data set of your own, listed in a manifest: python own_dataset.py [FOLDER]"""

import csv
import sys
from pathlib import Path

import numpy as np
import rasterio

import foveate
from foveate.runs import RunConfig, RunFolder, prepare_training


def write(path: Path, pixels: np.ndarray) -> None:
    """(bands, H, W) as a TIFF with coordinates."""
    bands, height, width = pixels.shape
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=bands, height=height, width=width, **place
    ) as file:
        file.write(pixels)


def make_scene(seed: int, height: int = 160, width: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """An image of four bands in which water is dark in the last one, and its classes."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    water = (rows - rng.integers(40, 120)) ** 2 + (cols - rng.integers(40, 160)) ** 2 < 40**2
    image = rng.normal(120, 30, (4, height, width))
    image[3] -= 80 * water
    return image.clip(0, 255).astype(np.uint8), water[None].astype(np.uint8)


def make_manifest(folder: Path) -> Path:
    """Three scenes, and the table of their images, masks and splits; paths are relative to the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed, split in enumerate(("train", "train", "val")):
        image, mask = make_scene(seed)
        rows.append({"image": f"scene-{seed}.tif", "mask": f"water-{seed}.tif", "split": split})
        write(folder / rows[-1]["image"], image)
        write(folder / rows[-1]["mask"], mask)
    with (folder / "files.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["image", "mask", "split"])
        table.writeheader()
        table.writerows(rows)
    return folder / "files.csv"


def main(folder: Path) -> None:
    manifest = make_manifest(folder)
    config = RunConfig.parse(
        {
            "data": {
                "manifest": str(manifest.resolve()),
                "classes": [{"name": "land", "color": "#808040"}, {"name": "water", "color": "#2040c0"}],
                "bands": [1, 2, 3, 4],  # TIFF calls the fourth of four bands alpha, which is left out unless named
                "in_channels": 4,
                "workers": 0,
            },
            "foveation": {"patch_size": 32, "fields_of_view": [32, 64], "overview_downsample": 8},
            "network": {"architecture": "c1", "encoder": "u_net", "weights": None, "options": {"width": 8, "depth": 2}},
            "training": {"steps": 30, "validate_every": 15, "locations_per_step": 8, "learning_rate": 0.01},
            "inference": {"block_size": 128},
        }
    )
    result = prepare_training(config, RunFolder(folder / "run"), overwrite=True).fit(progress=False)
    print(f"best validation mIoU: {result.best_miou:.2f}")

    run = foveate.load(folder / "run")
    summary = run.predict(folder / "scene-2.tif", folder / "predictions", overwrite=True)
    print("pixels of each class:", summary["class_pixels"])
    print("written:", ", ".join(sorted(path.name for path in (folder / "predictions").iterdir())))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-dataset"))
