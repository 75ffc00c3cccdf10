"""Tiny trained runs for the tests of reports."""

import re
from html.parser import HTMLParser

from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.train import prepare_training
from toys import make_data_set, toy_config

HOSTILE = "<script>alert('$x_1$ & \"y\"')</script>"
SPLIT = {"train": ["a"], "val": ["b", "c", "d"]}


def train_toy(root, name="run", *, classes=None, split=SPLIT, estimator=None, **training):
    """A run folder trained for a few steps on 170 x 150 pixels."""
    make_data_set(root / "toy")
    tree = toy_config(root, **{"steps": 4, "validate_every": 2, **training})
    tree["data"]["split"] = split
    if classes:
        tree["data"]["classes"] = classes
    if estimator:
        tree["foveation"]["estimator"] = estimator
    prepared = prepare_training(RunConfig.parse(tree), RunFolder(root / name))
    RunFolder(root / name).mark_trained(prepared.fit(progress=False).seconds)
    return root / name


class Page(HTMLParser):
    """What a test asks of a page: addresses, identities, elements, text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.identities, self.elements, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                self.addresses.append(value)
            if name == "id":
                self.identities.append(value)
            if name == "style":
                self.addresses += re.findall(r"url\(([^)]*)\)", value)

    def handle_data(self, data):
        if self.elements and self.elements[-1] != "style":
            self.words.append(data)

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())
