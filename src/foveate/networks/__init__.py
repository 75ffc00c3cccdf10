"""Networks: any segmentation_models_pytorch architecture with any timm encoder, built by name."""
