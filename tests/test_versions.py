"""What versions and requirements say is so: of a tag, of commits after it, of copies without git, of the pins."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
NEEDED = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitattributes", ".git_archival.txt")
README = (ROOT / "README.md").read_text()
AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
VERSION = """
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
print(ProjectMetadata(".", PluginManager()).core.version)
"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def readme_for_index():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.readme_for_index


def git(folder, *words):
    done = subprocess.run(["git", *AUTHOR, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A repository of what decides the version, with one commit."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in NEEDED:
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet")
    return committed(folder)


def committed(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A step")
    return folder


def version_of(folder):
    """What a build from this folder would be called, asked of the build backend in a process of its own."""
    done = subprocess.run([sys.executable, "-c", VERSION], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def archived(folder, tmp_path):
    """The folder as a download of an archive leaves it: without git."""
    git(folder, "archive", "--format=tar", f"--output={tmp_path / 'it.tar'}", "HEAD")
    with tarfile.open(tmp_path / "it.tar") as files:
        files.extractall(tmp_path / "archive", filter="data")
    return tmp_path / "archive"


def test_a_tag_is_the_version_and_later_commits_are_told_from_it(tree, tmp_path):
    git(tree, "tag", "v1.2.3")
    assert version_of(tree) == "1.2.3"
    assert version_of(archived(tree, tmp_path)) == "1.2.3"
    (tree / "more").touch()
    later = Version(version_of(committed(tree)))
    assert later > Version("1.2.3")
    assert later.is_devrelease
    assert git(tree, "rev-parse", "--short=7", "HEAD") in later.local


def test_without_a_tag_no_release_is_claimed(tree, tmp_path):
    for folder in (tree, archived(tree, tmp_path), ROOT):
        version = Version(version_of(folder))
        assert version.is_devrelease or version.local or git(ROOT, "tag", "--points-at", "HEAD")
    shutil.rmtree(tree / ".git")
    assert version_of(tree) == "0.0.0+unknown"


def targets(text):
    """Where all links and pictures of a Markdown text lead, by another reader than the one under test."""
    tokens = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or ()]
    found = (token.attrs.get("href") or token.attrs.get("src") for token in tokens)
    return [target for target in found if target]


def test_readme_of_the_index_has_no_relative_link(readme_for_index):
    here = [target for target in targets(README) if "://" not in target]
    assert here
    for target in here:
        assert (ROOT / target.partition("#")[0]).exists(), target
    linked = targets(readme_for_index(README, "https://example.org/o/n/", "1.2"))
    assert len(linked) == len(targets(README))
    for before, after in zip(targets(README), linked, strict=True):
        kind = "raw" if before.endswith((".png", ".svg")) else "blob"
        assert after == (before if "://" in before else f"https://example.org/o/n/{kind}/v1.2/{before}")
    assert targets(readme_for_index(README, "", "1.2")) == [target for target in targets(README) if "://" in target]


def test_readme_of_the_index_leaves_code_alone(readme_for_index):
    text = "```python\nf[0](x)\n```\nsee `[a](b)`, [`code`](docs/c.md) and [here](#start)"
    assert readme_for_index(text, "", "1.2.dev3") == text.replace("[`code`](docs/c.md)", "`code`")
    assert "[`code`](https://e.org/blob/HEAD/docs/c.md)" in readme_for_index(text, "https://e.org", "1.2.dev3")


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [needed for needed in map(Requirement, texts) if needed.name != PROJECT["name"]]


def test_pins_are_allowed_by_every_requirement():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for needed in requirements():
        if (pin := pins.get(needed.name.replace("_", "-"))) is not None:
            assert pin in needed.specifier, f"{needed} does not allow {pin}"
        assert {"==", "<", "<="}.isdisjoint(part.operator for part in needed.specifier), f"{needed} has an upper end"


def test_changes_of_a_release_are_those_under_its_heading(tmp_path):
    text = (
        "# Changelog\n\n## Unreleased\n- c\n\n## 1.10.0 - 2027-01-02\n\n### Added\n- b\n\n## 1.1.0 - 2026-01-02\n- a\n"
    )
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / "CHANGELOG.md").write_text(text)

    def changes(tag):
        command = [sys.executable, tmp_path / ".github" / "changes.py", tag]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert changes("v1.10.0").stdout == "### Added\n- b\n"
    assert changes("v1.1.0").stdout == "- a\n"
    for tag in ("v1.1", "v11100", "Unreleased", "v2.0.0"):
        assert changes(tag).returncode == 1
        assert "CHANGELOG.md has nothing under" in changes(tag).stderr


def test_every_action_is_pinned_and_asks_for_no_more_than_it_needs():
    """Pinned by commit, which nobody can move; a job may write only where the table says so."""
    may = {("docs.yml", "deploy"): {"pages", "id-token"}, ("release.yml", "publish"): {"id-token"}}
    may["release.yml", "announce"] = {"contents"}
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        assert "concurrency" in workflow
        for name, job in workflow["jobs"].items():
            writes = {what for what, kind in job.get("permissions", {}).items() if kind == "write"}
            assert writes == may.get((path.name, name), set()), f"{path.name}, {name}"
            assert job["timeout-minutes"]
            for step in job["steps"]:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40)), step


def test_workflows_call_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for name, value in re.findall(r"^(VENV|STAMP) := (\S+)$", makefile, re.MULTILINE):  # what others are made of first
        makefile = makefile.replace(f"$({name})", value.replace("$(VENV)", ".venv"))
    made = set(re.findall(r"^([\w./-]+):", makefile, re.MULTILINE))
    texts = [path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    called = {target for text in texts for target in re.findall(r"\bmake ([\w./-]+)", text)}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    called |= {hook["entry"].removeprefix("make ") for hook in hooks}
    assert {"check", "test", "dist"} <= called
    assert called <= made, called - made
