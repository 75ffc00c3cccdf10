import foveate


def test_the_public_names_are_frozen():
    assert sorted(foveate.__all__) == [
        "Cascade",
        "CascadeSegmenter",
        "FoveateError",
        "FoveatedSegmenter",
        "GumbelSoftmax",
        "Mixture",
        "Run",
        "RunConfig",
        "ScaleSet",
        "Size",
        "Window",
        "__version__",
        "build_network",
        "compare",
        "evaluate",
        "init",
        "load",
        "open_image",
        "patches",
        "predict",
        "push",
        "train",
        "trust_code",
    ]
    assert all(getattr(foveate, name) is not None for name in foveate.__all__)
