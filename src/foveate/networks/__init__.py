"""Networks: by name from segmentation_models_pytorch, timm and the original's menu, or a user's own by import path."""
