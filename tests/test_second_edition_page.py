"""The page of the second edition from a summary of a simulated study, whose records are counted again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.second_edition import figure, simulated, stored, study, tables
from experiments.second_edition.hypotheses import cells
from experiments.second_edition.rules import Cell
from llm.run.files import write_text

RADIUS = {"held_out": 0.04, "interval": [0.03, 0.05], "in_sample": 0.13}
ENTRY = {
    "name": "one", "pairs": 4959, "in_sample": 0.13, "enters": False, "accuracy": 0.61, "low": 0.59, "high": 0.63,
    "all": RADIUS, "batch": RADIUS,
}  # fmt: skip


@pytest.fixture(scope="module")
def records():
    world = simulated.World(
        lambda cell, group: -0.05 if cell.arm == "tv:0.4" else 0.0,
        ratio=lambda cell: cell.multiple[1] if cell.multiple else None,
        size=0.3,
        radius=0.04,
    )
    return simulated.studied(world, cells(), seed=1)


@pytest.fixture
def told(records, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    trained = [
        {
            **cell._asdict(), "set": cell.arm, "settings": [0.003, 0.3, 5], "ratio": None, "share": 0.5, "id_test": 0.6,
            "kept_norm": None if cell.arm == "erm" else 0.8, "levels": {"test": 0.6, "Chat": 0.7},
        }
        for cell in cells()
    ]  # fmt: skip
    summary = {
        "board": study.summary(records), "cells": trained, "entries": [ENTRY],
        "radii": [{"data": "real", "set": "tv", "batch": 32, **RADIUS}],
    }  # fmt: skip
    write_text(tmp_path / "summary.json", json.dumps(summary))
    return stored.Told.kept()


@pytest.mark.slow("it counts every table")
def test_quoted_numbers_are_those_of_the_records(records, told):
    """The mean of a category over suites, pairs and seeds, counted without the judge."""
    right = {arm: records.right[Cell("real", arm)] for arm in ("erm", "tv:0.4")}
    change = [
        (right["tv:0.4"][name] - right["erm"][name])[:, suite.categories == "Reasoning"]
        for name, suite in records.suites.items()
        if "Reasoning" in suite.categories
    ]
    mean = 100 * np.concatenate(change, axis=1).mean()
    assert told.quoted("gain real; tv:0.4; Reasoning").startswith(f"{mean:+.1f} [")
    plain = 100 * records.right[Cell("real")]["test"].mean()
    assert told.quoted("plain test").startswith(f"{plain:.1f} [")
    assert told.quoted("level real; tv:0.2; Chat") == "70.0"
    assert told.quoted("radius real; tv; 32") == "0.040 [0.030, 0.050]"
    assert told.quoted("outcome H5") == "cannot bear a worst case"  # the radius is below the entry
    assert told.quoted("computed H5") in ("refuted", "undecided")
    assert told.quoted("outcome H8") == "not run"
    losses = [float(told.quoted(f"ratio 2; {which}").split()[0]) for which in ("most", "least")]
    assert losses[0] <= losses[1]
    with pytest.raises(ValueError, match=r"no comparison of real, tv:0[.]9"):
        told.quoted("gain real; tv:0.9; test")


@pytest.mark.slow("it counts every table")
def test_a_page_is_filled_and_the_figure_drawn(told, tmp_path):
    names = list(tables.tables(told))
    page = "".join(f"<!-- {name} -->\n<!-- end -->\n" for name in names)
    page += "Plain heads: <!-- study plain test -->?<!-- / -->.\n"
    write_text(tmp_path / "page.md", page)
    tables.write(tmp_path / "page.md", told)
    filled = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "?" not in filled.splitlines()[-1]
    assert tables.written(filled, told) == filled
    assert {"H2", "H8", "positive control", "suspects"} <= set(names)
    assert filled.count("| H1 | The collapse radius") == 1
    figure.draw(told, tmp_path / "effects.png")
    assert (tmp_path / "effects.png").read_bytes().startswith(b"\x89PNG")
