"""The tiny models that every file on TRL's trainers reads."""

from __future__ import annotations

import pytest
from tiny_trl import build


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny"))
