"""Finished runs to damage, ways to do it, and what the commands say then."""

from __future__ import annotations

import logging
import re
import shutil

from llm.run.finished import SEAL
from robust_rlhf import main


def copy(place, kind, tmp_path, *, sealed=True):
    run = shutil.copytree(place.runs / kind, tmp_path / kind)
    if not sealed:
        (run / SEAL).unlink()
    return run


def digit(path):
    """Another digit where there is one: still JSON, still a number."""
    text = path.read_text()
    where = next(k for k in range(len(text) // 2, len(text)) if text[k] in "12345678")
    path.write_text(text[:where] + str(int(text[where]) + 1) + text[where + 1 :])


def status_of(argv):
    try:
        return main(argv)
    except SystemExit as end:  # of argparse
        return end.code


def said_by(capsys, caplog, argv):
    """Exit status, and the lines of errors and of our warnings."""
    caplog.clear()
    capsys.readouterr()
    with caplog.at_level(logging.WARNING):
        status = status_of(list(map(str, argv)))
    bars = re.compile(r"^(\[transformers\]|.*[━╸]|\s*$)")
    errors = [line for line in capsys.readouterr().err.splitlines() if not bars.match(line)]
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("llm")]
    return status, "".join(f"{line}\n" for line in [*warnings, *errors])


def evaluate(run, place):
    ranked = [] if run.name == "reward" else ["--reference", "none"]
    return ["evaluate", run, "--suite", place.inputs / "train.jsonl", "--eval-pairs", "4", *ranked]


HOSTILE = {  # what a file may hold instead of a record
    "{}": b"{}",
    "[]": b"[]",
    "one entry": b'{"a": 1}',
    "cut": b'{"config": {"model": "x"',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "other kinds": b'{"config": 5, "history": 7, "suites": [], "log_history": [1], "settings": 1, "inputs": 2, "judged": 3}',  # noqa: E501
}


def demo(folder, *more):
    settings = ["max_steps=1", "use_cpu=true", "max_length=48", "disable_tqdm=true"]
    return ["demo", "--ambiguity", "erm", "--max-pairs", "32", "--eval-pairs", "8", "--output", folder,
            "--set", *settings, *more]  # fmt: skip
