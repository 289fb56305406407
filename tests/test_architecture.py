"""The floors import downwards only, private modules stay at home, files and functions stay small everywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "dro_core": set(),
    "synthetic": {"dro_core"},
    "proofs_check": {"dro_core", "synthetic"},
    "llm": {"dro_core"},
}
OURS = set(ALLOWED) | {"robust_rlhf"}
FOLDERS = [*ALLOWED, "benchmarks", "experiments", "examples", "docs", "tests"]
TABLE = "One table drives this file."  # what the docstring of a longer file of tests says
FILES = [(package, path) for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
SMALL = [ROOT / "robust_rlhf.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


def imported(path: Path, package: str):
    """Every (package, dotted module path) an import statement of the file names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            full = f"{package}.{module}" if node.level else module
            for alias in node.names:
                yield full.split(".")[0], f"{full}.{alias.name}"


@pytest.mark.parametrize(("package", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_imports_point_downwards(package, path):
    for target, dotted in imported(path, package):
        if target in OURS and target != package:
            assert target in ALLOWED[package], f"{package} must not import {target}"
            private = [part for part in dotted.split(".")[1:] if part.startswith("_")]
            assert not private, f"{dotted} is private to {target}"
        if package in ("dro_core", "synthetic", "proofs_check"):
            assert target not in ("torch", "transformers"), f"{package} must not import {target}"


@pytest.mark.parametrize("path", SMALL, ids=[str(path.relative_to(ROOT)) for path in SMALL])
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    if not says_that_a_table_drives_it(path):
        assert len(text.splitlines()) <= most_lines(path), "split it by subject"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            length = node.end_lineno - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)
            assert length <= 60, f"{node.name} has {length} lines"


def most_lines(path):
    return 100 if path.is_relative_to(ROOT / "examples") else 300


def says_that_a_table_drives_it(path):
    """Which excuses files of tests alone."""
    return path.is_relative_to(ROOT / "tests") and TABLE in (ast.get_docstring(ast.parse(path.read_text())) or "")


def test_only_long_files_are_excused():
    """Whoever splits one takes its sentence away."""
    for path in filter(says_that_a_table_drives_it, SMALL):
        assert len(path.read_text().splitlines()) > most_lines(path), path


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT.parent)


def test_help_and_verify_never_load_torch():
    code = (
        "import sys, robust_rlhf\nfor command in [], ['verify'], ['simulate']:\n"
        "    try: robust_rlhf.main([*command, '--help'])\n    except SystemExit: pass\n"
        "    assert 'torch' not in sys.modules, command"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage") == 3


def test_unknown_command_lists_the_known_ones():
    done = run("-m", "robust_rlhf", "trian")
    assert done.returncode == 2
    assert "train" in done.stderr
