"""The wheel holds what it should and works in an empty environment, away from the repository."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shell(*command, cwd):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    shell(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_packages_and_no_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "robust_rlhf.py",
        "dro_core/py.typed",
        "llm/recipes/reward-minilm.yaml",
        *(f"llm/accelerate/{name}.yaml" for name in ("single", "ddp", "fsdp2", "zero2", "zero3")),
        "proofs_check/__main__.py",
    ):
        assert needed in names
    assert any(name.startswith("llm/templates/") for name in names)
    assert not [name for name in names if name.endswith((".jsonl", ".gz", ".safetensors", ".parquet"))]
    assert {name.split("/")[0] for name in names if not name.startswith("robust_rlhf-")} == {
        "robust_rlhf.py",
        "dro_core",
        "synthetic",
        "llm",
        "proofs_check",
    }


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    shell(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert "usage: robust-rlhf" in shell(home / "bin" / "robust-rlhf", "--help", cwd=tmp_path)
    solved = shell(
        python,
        "-c",
        "import numpy, dro_core as d; print(d.robust_loss(numpy.array([1.0, 2.0, 4.0]), d.CVaR(1 / 3)))",
        cwd=tmp_path,
    )
    assert float(solved) == pytest.approx(4.0)
    missing = subprocess.run(
        [home / "bin" / "robust-rlhf", "demo"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert missing.returncode == 2
    assert "pip install 'robust-rlhf[llm]'" in missing.stderr
