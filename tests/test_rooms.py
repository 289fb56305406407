"""Rooms of llm: who may import whom, lazily or not. A room may import only rooms that stand above it in the table."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from llm.data.corpus.corpus import write_corpus

LLM = Path(__file__).parents[1] / "llm"
MAY = {  # from the ground up
    "run": "",
    "statistics": "",
    "tasks": "",
    "data": "tasks",
    "text": "data",
    "audit": "data run text",
    "models": "run text",
    "adversary": "data run",
    "results": "data run statistics",
    "features": "data models run statistics text",
    "judging": "data models run statistics text",
    "doctor": "adversary run statistics",
    "report": "adversary data doctor results run statistics",
    "export": "data models run text",
    "rewards": "data models tasks text",
    "serving": "data models text",
    "training": "adversary audit data judging models run statistics text",
    "policy": "adversary data models rewards run statistics text training",
    "trl": "adversary data rewards run text training",
    "kinds": "adversary data judging models policy run statistics text training",
    "sweep": "adversary audit data features judging kinds models report results run statistics text training",
    "pipeline": "data kinds models policy report rewards run statistics training",
    "api": "audit data doctor features judging kinds models report results rewards run serving sweep text training",
    "commands": "api audit data doctor export features judging kinds models pipeline report results run serving sweep "
    "training",
}
NO_TORCH = {"run", "statistics", "tasks", "data", "results", "report", "doctor"}
HEAVY = ("torch", "transformers", "peft", "accelerate")
FLAT = 17  # files of one folder
FILES = [(room, path) for room in MAY for path in sorted((LLM / room).rglob("*.py"))]


def imports(path):
    """(absolute dotted names, whether only called later or for type checkers) of every import in the file."""
    package = ["llm", *path.relative_to(LLM).parts[:-1]]
    tree = ast.parse(path.read_text())
    first = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        later = id(node) not in first
        if isinstance(node, ast.Import):
            yield from ((alias.name, later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            is_room = whole.startswith("llm") and (LLM.parent / whole.replace(".", "/")).is_dir()
            names = [f"{whole}.{alias.name}" for alias in node.names] if is_room else [whole]
            yield from ((name, later) for name in names)


@pytest.mark.parametrize(("room", "path"), FILES, ids=[str(path.relative_to(LLM)) for _, path in FILES])
def test_rooms_import_downwards(room, path):
    for name, later in imports(path):
        top, *rest = name.split(".")
        if top == "llm" and rest and rest[0] != room:
            assert rest[0] in MAY[room].split(), f"llm/{room} must not import {name}"
        if room in NO_TORCH and not later:
            assert top not in HEAVY, f"llm/{room} must not import {top}"


def test_the_table_allows_no_more_than_is_used():
    used = {room: set() for room in MAY}
    for room, path in FILES:
        used[room] |= {name.split(".")[1] for name, _ in imports(path) if name.startswith("llm.")} - {room}
    assert {room: " ".join(sorted(rooms)) for room, rooms in used.items()} == MAY


def test_the_table_itself_has_no_circle():
    order = list(MAY)
    assert all(order.index(below) < order.index(room) for room, rooms in MAY.items() for below in rooms.split())


def test_the_folders_are_the_rooms():
    folders = {path.name for path in LLM.iterdir() if any(path.glob("*.py"))}
    assert folders == set(MAY)
    assert {path.name for path in LLM.glob("*.py")} == {"__init__.py"}  # the public face


def test_no_file_of_a_room_imports_in_a_circle():
    """Imports that are carried out when a file is loaded: every file of a room can be loaded first."""
    edges = {}
    for _, path in FILES:
        name = ".".join(("llm", *path.relative_to(LLM).with_suffix("").parts)).removesuffix(".__init__")
        edges[name] = {target for target, later in imports(path) if not later and target.startswith("llm.")}
    done, stack = set(), []

    def visit(name):
        assert name not in stack, f"a circle: {' -> '.join([*stack[stack.index(name) :], name])}"
        if name not in done:
            stack.append(name)
            for target in sorted(edges.get(name, ())):
                visit(target)
            done.add(stack.pop())

    for name in edges:
        visit(name)


ANY = 292
LOADED = 105  # of 300 lines at most; docs/architecture.md says what they are
TRAINED = """
import sys
from pathlib import Path
import llm, robust_rlhf
assert robust_rlhf.main(sys.argv[1:]) == 0
rooms = Path(llm.__file__).parent
files = [Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print("loaded:", *(path.relative_to(rooms) for path in files if path.is_relative_to(rooms)), flush=True)
"""


@pytest.mark.slow("it trains in a process of its own")
def test_a_reward_run_loads_what_it_uses(tmp_path):
    """A tiny robust run in an interpreter of its own: rules, formats and parts that are not taken wait."""
    write_corpus(tmp_path, train=64, test=8)
    told = ["--config", "reward-tiny", "--ambiguity", "tv:0.2", "--max_steps", "2", "--disable_tqdm", "true"]
    files = ["--train_file", tmp_path / "train.jsonl", "--output_dir", tmp_path / "run"]
    command = [sys.executable, "-c", TRAINED, "train", "reward", *told, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=LLM.parent)
    assert done.returncode == 0, done.stderr
    loaded = next(line for line in done.stdout.splitlines() if line.startswith("loaded:")).split()[1:]
    names = {name for name in loaded if not name.endswith("__init__.py")}
    assert {"training/robust_trainer.py", "kinds/reward.py", "adversary/spec.py"} <= names
    assert len([name for name in names if not name.startswith("data/layouts/")]) <= LOADED, sorted(names)
    assert not [name for name in names if name.startswith(("policy", "report", "doctor", "sweep", "pipeline"))]
    assert not names & {f"kinds/{kind}.py" for kind in ("dpo", "sft", "policy")}


def test_any_is_said_no_more_often_than_it_was():
    """A bound that goes down: whoever gives a value its type lowers it. ``object`` is for what is only passed on."""
    trees = [ast.parse(path.read_text()) for path in LLM.rglob("*.py")]
    said = sum(isinstance(node, ast.Name) and node.id == "Any" for tree in trees for node in ast.walk(tree))
    assert 0 < said <= ANY


@pytest.mark.parametrize("room", MAY)
def test_every_room_says_who_lives_there_and_stays_small(room):
    assert ast.get_docstring(ast.parse((LLM / room / "__init__.py").read_text()))
    for folder in {path.parent for path in (LLM / room).rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) - 1 <= FLAT, folder  # __init__ is the sign on the door


def test_no_class_name_stands_in_two_rooms():
    seen = {}
    for room, path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert seen.setdefault(node.name, room) == room, f"{node.name} in {room} and {seen[node.name]}"


def test_rooms_without_torch_load_without_it():
    modules = [
        ".".join(("llm", *path.relative_to(LLM).with_suffix("").parts)) for room, path in FILES if room in NO_TORCH
    ]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"loaded = set({HEAVY!r}) & set(sys.modules)\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=LLM.parent)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_the_rooms_as_they_are():
    import draw_rooms

    assert draw_rooms.table() in draw_rooms.PAGE.read_text(), "python tests/draw_rooms.py"
    drawn = draw_rooms.PICTURE.read_text()
    assert all(f">{room}<" in drawn for room in MAY), "python tests/draw_rooms.py"
