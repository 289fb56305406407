"""The wheel holds what it should and works with nothing but what it asks for, away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# What pip makes of the entry point, in an interpreter that has no `exit`.
SCRIPT = "from importlib.metadata import distribution as d; [it] = d('robust-rlhf').entry_points; "
SCRIPT += "raise SystemExit(it.load()())"


def run(*command, cwd, path=""):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    words = [str(part) for part in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def shell(*command, **where):
    done = run(*command, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(once):
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir")
    return next(once("wheel", lambda folder: shell(*command, folder, cwd=ROOT)).glob("*.whl"))


def test_wheel_holds_the_packages_and_no_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "robust_rlhf.py",
        "dro_core/py.typed",
        "llm/recipes/reward-minilm.yaml",
        *(f"llm/accelerate/{name}.yaml" for name in ("single", "cpu", "ddp", "fsdp2", "zero2", "zero3")),
        "proofs_check/__main__.py",
    ):
        assert needed in names
    assert any(name.startswith("llm/report/templates/") for name in names)
    assert not [name for name in names if name.endswith((".jsonl", ".gz", ".safetensors", ".parquet"))]
    assert {name.split("/")[0] for name in names if not name.startswith("robust_rlhf-")} == {
        "robust_rlhf.py",
        "dro_core",
        "synthetic",
        "llm",
        "proofs_check",
    }


def check_installation(script, python, **where):
    assert "usage: robust-rlhf" in shell(*script, "--help", **where)
    code = "import numpy, dro_core as d; print(d.robust_loss(numpy.array([1.0, 2.0, 4.0]), d.CVaR(1 / 3)))"
    assert float(shell(*python, "-c", code, **where)) == pytest.approx(4.0)
    missing = run(*script, "demo", **where)
    assert missing.returncode == 2
    assert "pip install 'robust-rlhf[llm]'" in missing.stderr


def test_wheel_works_with_its_requirements_alone(wheel, tmp_path):
    """The wheel unpacked beside links to the packages that it requires, and that those require: no download."""
    home = tmp_path / "home"
    zipfile.ZipFile(wheel).extractall(home)
    waiting, known = list(metadata.distributions(path=[str(home)])), set()
    while waiting:
        for needed in map(Requirement, waiting.pop().requires or ()):
            if needed.name in known or (needed.marker and not needed.marker.evaluate({"extra": ""})):
                continue
            known.add(needed.name)
            waiting.append(found := metadata.distribution(needed.name))
            for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                (home / part).symlink_to(found.locate_file(part))
    python = (sys.executable, "-S")  # without this environment's packages
    check_installation((*python, "-c", SCRIPT), python, cwd=tmp_path, path=home)


@pytest.mark.exhaustive
@pytest.mark.slow("pip downloads and installs numpy, scipy and rich into an empty environment")
def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    shell(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    check_installation([home / "bin" / "robust-rlhf"], [python], cwd=tmp_path)
