"""A finished sweep that the files on sweeps share: trained once for all, a copy for each file."""

import shutil

import pytest
from small_sweeps import SETTINGS, prepared, swept


@pytest.fixture(scope="module")
def place(once, tmp_path_factory):
    """Its results and its features, to be added to."""

    def build(folder):
        _, counts = swept(folder / "results", folder / "cache")
        assert counts == {"before": 0, "done": 19, "failed": 1}

    return shutil.copytree(once("sweep of small heads", build), tmp_path_factory.mktemp("sweep") / "copy")


@pytest.fixture(scope="module")
def cache(place):
    return place / "cache"


@pytest.fixture(scope="module")
def finished(place, cache):
    return prepared(place / "results", SETTINGS, cache)
