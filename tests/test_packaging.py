"""The wheel and the source package hold what they should and work, away from the repository, with what they ask for."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("dro_core", "synthetic", "llm", "proofs_check")
# What pip makes of the entry point, in an interpreter that has no `exit`.
SCRIPT = "from importlib.metadata import distribution as d; [it] = d('robust-rlhf').entry_points; "
SCRIPT += "raise SystemExit(it.load()())"
DATA = (".jsonl", ".gz", ".safetensors", ".parquet", ".npz", ".pt", ".bin", ".gguf", ".html", ".png", ".svg")


def run(*command, cwd, path=""):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    words = [str(part) for part in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def shell(*command, **where):
    done = run(*command, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(once):
    """The folder of both files, the wheel built from the source package; those of `make dist` where DIST names them."""
    if folder := os.environ.get("DIST"):
        return Path(folder).resolve()
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    return once("dist", lambda folder: shell(*command, folder, cwd=ROOT))


@pytest.fixture(scope="module")
def wheel(dist):
    [wheel] = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(dist):
    [source] = dist.glob("*.tar.gz")
    return source


def packaged():
    """All files of our packages, as they lie in the tree."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    kept = {str(path.relative_to(ROOT)) for path in files if path.is_file() and "__pycache__" not in path.parts}
    return kept | {"robust_rlhf.py"}


def test_wheel_holds_the_packages_whole_and_no_data(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = {name for name in files.namelist() if not name.startswith("robust_rlhf-")}
    assert names == packaged()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert not [name for name in names if name.endswith(DATA) or "test" in Path(name).parts[0]]


def test_source_package_is_what_the_wheel_is_built_from_and_no_more(source):
    with tarfile.open(source) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    texts = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
    assert names - packaged() == texts | {"pyproject.toml", "hatch_build.py", ".gitignore", "PKG-INFO"}
    assert packaged() <= names


def test_index_takes_both(dist):
    files = [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]
    shell(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=ROOT)


def about(wheel):
    with zipfile.ZipFile(wheel) as files:
        [name] = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(files.read(name))


def check_installation(script, python, version, **where):
    assert "usage: robust-rlhf" in shell(*script, "--help", **where)
    assert shell(*script, "--version", **where) == f"robust-rlhf {version}\n"
    assert shell(*python, "-c", "import llm; print(llm.__version__)", **where) == f"{version}\n"
    code = "import numpy, dro_core as d; print(d.robust_loss(numpy.array([1.0, 2.0, 4.0]), d.CVaR(1 / 3)))"
    assert float(shell(*python, "-c", code, **where)) == pytest.approx(4.0)
    missing = run(*script, "demo", **where)
    assert missing.returncode == 2
    assert "pip install 'robust-rlhf[llm]'" in missing.stderr
    missing = run(*python, "-c", "import llm; llm.train", **where)
    assert "llm.train needs" in missing.stderr
    assert "pip install 'robust-rlhf[llm]'" in missing.stderr.splitlines()[-1]


def check_without_torch(script, sample, **where):
    """What the extras theory and report are for."""
    assert "upheld" in shell(*script, "verify", "kl-penalty-gap", **where)
    assert "next: " in shell(*script, "report", sample, "-o", where["cwd"] / "report.html", **where)
    assert (where["cwd"] / "report.html").stat().st_size > 10_000


def unpack(wheel, home, *extras):
    """The wheel beside links to the packages that it requires, and that those require: no download."""
    zipfile.ZipFile(wheel).extractall(home)
    [own] = metadata.distributions(path=[str(home)])
    waiting, known = [(own, {"", *extras})], set()
    while waiting:
        asking, wanted = waiting.pop()
        for needed in map(Requirement, asking.requires or ()):
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in wanted):
                continue
            if needed.name == "robust-rlhf":
                waiting.append((own, set(needed.extras)))
            elif needed.name not in known:
                known.add(needed.name)
                waiting.append((found := metadata.distribution(needed.name), {"", *needed.extras}))
                for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                    (home / part).symlink_to(found.locate_file(part))


PYTHON = (sys.executable, "-S")  # without this environment's packages


def test_wheel_works_with_its_requirements_alone(wheel, tmp_path):
    unpack(wheel, tmp_path / "home")
    version = about(wheel)["Version"]
    check_installation((*PYTHON, "-c", SCRIPT), PYTHON, version, cwd=tmp_path, path=tmp_path / "home")


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """Results of a sweep."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "llm")
    from results_samples import write_sample

    write_sample(tmp_path / "sample", seeds=2)
    return tmp_path / "sample"


@pytest.mark.exhaustive
def test_claims_and_reports_need_no_torch(wheel, sample, tmp_path):
    unpack(wheel, tmp_path / "home", "theory", "report")
    assert not (tmp_path / "home" / "torch").exists()
    check_without_torch((*PYTHON, "-c", SCRIPT), sample, cwd=tmp_path, path=tmp_path / "home")


@pytest.mark.exhaustive
@pytest.mark.slow("pip downloads and installs numpy, scipy, pandas and matplotlib into an empty environment")
@pytest.mark.timeout(1200)
def test_wheel_works_in_an_empty_environment(wheel, sample, tmp_path):
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    script, python = home / "bin" / "robust-rlhf", home / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt")
    shell(*install, wheel, cwd=tmp_path)
    check_installation([script], [python], about(wheel)["Version"], cwd=tmp_path)
    shell(*install, f"{wheel}[theory,report]", cwd=tmp_path)
    check_without_torch([script], sample, cwd=tmp_path)
