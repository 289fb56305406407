"""The deliberate breaks of breaks.py can be applied: each names a line that stands once, and tests that exist."""

from __future__ import annotations

import pytest
from breaks import BREAKS, ROOT, applied

by_name = pytest.mark.parametrize("broken", BREAKS, ids=[broken.name for broken in BREAKS])


@by_name
def test_a_break_names_one_line_and_tests_that_exist(broken):
    text = (ROOT / broken.file).read_text()
    assert applied(broken, text) != text
    assert all((ROOT / "tests" / path).exists() for path in broken.tests.split())


def test_there_are_ten_of_each_package():
    counted = [
        sum(broken.file.startswith(package) for broken in BREAKS) for package in ("dro_core", "proofs_check", "llm")
    ]
    assert min(counted) >= 10
