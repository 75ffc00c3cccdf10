import foveate


def test_the_public_names_are_frozen():
    assert sorted(foveate.__all__) == [
        "Cascade",
        "CascadeSegmenter",
        "FixedScale",
        "FoveateError",
        "FoveatedSegmenter",
        "GumbelSoftmax",
        "Mixture",
        "ScaleSet",
        "Size",
        "SoftExpectation",
        "StraightThroughArgmax",
        "Window",
        "__version__",
        "build_network",
        "load_run",
        "open_image",
        "predict",
        "trust_code",
    ]
    assert all(getattr(foveate, name) is not None for name in foveate.__all__)
