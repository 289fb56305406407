from __future__ import annotations

import pytest

from llm.rewards import bench


@pytest.fixture(scope="module", autouse=True)
def ended():
    """No process of a checker outlives the file of its tests."""
    yield
    bench.close_all()
