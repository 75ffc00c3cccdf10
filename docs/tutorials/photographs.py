# %% [markdown]
# # Photographs: vessels of the eye
#
# This tutorial uses plain JPEG files with PNG masks: photographs of the back of the eye from
# [HRF](https://www5.cs.fau.de/research/data/fundus-images/), 3504 x 2336 pixels, with the vessels as labels. They are
# in the folder `hrf` of `$FOVEATE_DATA`; [the data sets of the configs](../how-to/data-sets.md) says where to get them.
#
# **The training uses three photographs and takes seconds**, so that this page can be built quickly. It shows the steps,
# not what the method can do. For that, see [the results](../results.md).

# %%
import os
import tempfile
from pathlib import Path

import foveate
from foveate.demo import encoder_weights
from foveate.runs import RunConfig, RunFolder, evaluate_split, prepare_training

# %matplotlib inline
data = Path(os.environ["FOVEATE_DATA"]) / "hrf"
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The data
#
# A manifest lists the images, their masks and their splits.

# %%
splits = {"01_h": "train", "02_h": "train", "03_h": "train", "05_h": "test"}
rows = [f"{data}/images/{name}.jpg,{data}/masks/{name}.png,{split}" for name, split in splits.items()]
(folder / "files.csv").write_text("\n".join(["image,mask,split", *rows]), encoding="utf-8")

with foveate.open_image(data / "images" / "01_h.jpg") as image:
    print(image.size, image.bands)

# %% [markdown]
# ## The configuration
#
# `RunConfig.load("configs/hrf.yaml")` would load a configuration from a file; this is a small one in full. The estimator
# `gumbel` passes one patch per place, at a scale that is drawn from the probabilities of the policy.

# %%
config = RunConfig.parse(
    {
        "name": "vessels",
        "data": {
            "manifest": str(folder / "files.csv"),
            "split": {"val": []},  # none of the four photographs validates
            "classes": [{"name": "background", "color": "#000000"}, {"name": "vessel", "color": "#ffffff"}],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "balance": 0.5,
            "workers": 0,
        },
        "foveation": {
            "patch_size": 128,
            "fields_of_view": [128, 256],
            "overview_downsample": 32,
            "estimator": {"name": "gumbel"},
        },
        "network": {
            "architecture": "fpn",
            "encoder": "tf_efficientnet_lite0",
            "weights": str(encoder_weights()),
            "options": {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32},
        },
        "training": {
            "steps": 40,
            "locations_per_step": 8,
            "images_per_step": 1,
            "learning_rate": 2e-3,
            "policy_learning_rate": 4e-4,
            "warmup_steps": 5,
            "losses": {"cross_entropy": 1.0, "dice": 0.5},
        },
        "inference": {"overlap": 0.0},
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

# %%
evaluation.plot()

# %% [markdown]
# ## Predict and look

# %%
result = run.predict(data / "images" / "05_h.jpg", folder / "predictions")
result

# %% [markdown]
# The result is also a dictionary:

# %%
{key: result[key] for key in ("passes", "passes_per_megapixel", "seconds")}

# %% [markdown]
# The region around the optic disc, with the labels beside the prediction:

# %%
result.plot(foveate.Window(800, 1900, 900, 1200), labels=data / "masks" / "05_h.png")

# %% [markdown]
# Next: [your own data](../how-to/own-data.md), [compare estimators](../how-to/compare.md), [a report on a
# run](../how-to/report.md).
