from __future__ import annotations

import pytest
from scored_models import LENGTH, judge
from served_models import running

from llm.serving.reading import reader_of


@pytest.fixture(scope="session")
def bert():
    with running(reader_of(*judge("bert"), max_length=LENGTH, batch_tokens=2048)) as server:
        yield server
