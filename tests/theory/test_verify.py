"""The command `robust-rlhf verify`: what it says, what it stores, and what it survives."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from proofs_check.__main__ import main
from proofs_check.registry import CLAIMS

LIGHT = ["tv-gap", "chi2-variance", "tv-bias-root-n"]
# Of PLANTED, all that come to an end by themselves: after "leaves" in another process than before.
ENDING = [
    *("draws", "plain", "other", "nowhere", "nan", "raises", "rejects", "leaves"),
    *("imports", "late", "loud", "false"),
]

# A registry of claims that behave and misbehave. `alone` counts its visits in a file beside the module.
PLANTED = '''
import os, sys, time, warnings
from dataclasses import dataclass, replace
from pathlib import Path
from hypothesis import strategies as st
from proofs_check import Claim, Instances, Verdict, mutant
from proofs_check.claim import Curve

HERE = Path(__file__).parent

@dataclass(frozen=True)
class Number:
    value: float

def plain(label, **changes):
    """Twice as much is more."""
    start = Claim(
        label=label, statement="x <= 2x | x_1 > 0", reference="by hand", assumptions={"x > 0": lambda x: x.value > 0},
        instances=Instances(Number, (Number(1.0), Number(2.0)), st.integers(-1, 9).map(lambda k: Number(k / 4))),
        lhs=lambda x: x.value, rhs=lambda x: 2 * x.value, scale=lambda x: x.value, effort=0.1,
    )
    claim = replace(start, **changes)
    return claim.with_mutants(mutant(claim, "half", lhs=lambda x: x.value, rhs=lambda x: x.value / 2))

def alone(x):
    """Say who is at work; the first time, work until somebody kills us."""
    visited = (HERE / "pid").exists()
    (HERE / "pid.new").write_text(str(os.getpid()))
    (HERE / "pid.new").rename(HERE / "pid")
    if not visited:
        time.sleep(300)
    return x.value

def loud(x):
    print("NOISE"); os.write(1, b"NOISE"); os.write(2, b"NOISE"); warnings.warn("NOISE"); sys.stdin.read()
    return x.value

def imports(x):
    import proofs_check.registry
    return x.value

def fails(x):
    raise ZeroDivisionError("no side to see")

def thrice(x):
    return 3 * x.value

def false():
    """Three times as much is not at most twice as much."""

MANY = Instances(Number, (Number(1.0),), st.integers(1, 10**6).map(lambda k: Number(float(k))))
CLAIMS = (
    plain("plain"),
    plain("other", curve=Curve("value", tuple(Number(2.0**k) for k in range(8)))),
    plain("nowhere", assumptions={"never": lambda x: False}),
    plain("nan", lhs=lambda x: float("nan")),
    plain("raises", lhs=fails),
    plain("rejects", instances=Instances(Number, (Number(1.0),), st.nothing())),
    plain("leaves", lhs=lambda x: os._exit(3)),
    plain("loud", lhs=loud),
    plain("alone", lhs=alone),
    plain("imports", lhs=imports),
    plain("draws", effort=1.0, scale=lambda x: 1.0, instances=MANY),
    plain("late", effort=1.0, scale=lambda x: 1.0, instances=MANY),
    plain("false", lhs=thrice, expected=Verdict.REFUTED, by_hand="Take <x> = 1.",
          violates=lambda x: 3 * x.value > 2 * x.value),
)
'''


def plant(folder, monkeypatch, text=PLANTED):
    """A registry in a module that has a name of its own in every test; returns the arguments that choose it."""
    name = "planted_" + re.sub(r"\W", "_", folder.name)
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    return ["--registry", f"{name}:CLAIMS"]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    return plant(tmp_path, monkeypatch)


def stored(path="out.json"):
    with open(path) as file:
        return json.load(file)


def by_label(path="out.json"):
    return {report["label"]: report for report in stored(path)["reports"]}


def one_line(text):
    return " ".join(text.split())


def start(arguments, **options):
    command = (
        "import sys; from proofs_check.__main__ import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", command, *arguments], **pipes, **options)


class Run(NamedTuple):
    """How a run ended, what it said, and the folder it ran in."""

    status: int
    out: str
    err: str
    folder: Path


def run_once(once, name, arguments):
    """A run in a folder with the planted registry, made once for all tests that look at what it leaves behind."""

    def build(folder):
        (folder / "here").mkdir()
        (folder / "planted.py").write_text(PLANTED)
        process = start(arguments, cwd=folder / "here", env=os.environ | {"PYTHONPATH": str(folder)})
        said = process.communicate(timeout=120)
        (folder / "said.json").write_text(json.dumps([process.returncode, *said]))

    folder = once(name, build)
    return Run(*json.loads((folder / "said.json").read_text()), folder / "here")


@pytest.fixture(scope="module")
def light(once):
    """Three claims of ours."""
    return run_once(once, "light", [*LIGHT, "--seed", "3", "--jobs", "2", "--json", "out.json"])


@pytest.fixture(scope="module")
def ending(once):
    """All planted claims that come to an end by themselves."""
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    return run_once(once, "ending", ["--registry", "planted:CLAIMS", "--jobs", "1", *ENDING, *outputs])


@pytest.mark.slow("it waits for all planted claims, some of which kill their process")
def test_a_run_in_this_process_stores_what_the_command_stores(planted, ending, capfd):
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    labels = ["plain", "other", "false", "raises", "leaves", "nowhere"]
    assert main([*planted, "--jobs", "1", *labels, *outputs]) == 1
    here, there = by_label(), by_label(ending.folder / "out.json")
    for label in labels:
        for report in (here[label], there[label]):
            report.pop("seconds", None)
        assert here[label] == there[label]
    assert "not as expected" in one_line(capfd.readouterr().out)
    with open("out.html") as page:
        assert "<svg" in page.read()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs; one that has ended but was not collected by its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_shows_and_stores_its_verdicts_and_leaves_nothing_else(light, capsys):
    status, out, progress, folder = light
    assert status == 0, progress
    assert [path.name for path in folder.iterdir()] == ["out.json"]
    assert "3 claims checked: 2 upheld, 1 refuted, all as expected." in out
    assert out.index(LIGHT[0]) < out.index(LIGHT[1]) < out.index(LIGHT[2])
    for label in LIGHT:
        assert len(re.findall(rf"^{label}: \w+, \w+, tightness \S+, \d+ instances, \S+ s$", progress, re.M)) == 1
    assert max(map(len, out.splitlines())) <= 80
    assert main(["--replay", str(folder / "out.json")]) == 0
    again = capsys.readouterr().out
    assert again.count("both sides are the same") == 3
    assert again.count("exact arithmetic still refutes it") == 1


def test_results_do_not_depend_on_the_processes_or_the_order(light, tmp_path):
    assert main(["--jobs", "1", *LIGHT[::-1], "--seed", "3", "--json", str(tmp_path / "turned.json")]) == 0
    found, turned = by_label(light.folder / "out.json"), by_label(tmp_path / "turned.json")
    for report in (*found.values(), *turned.values()):
        assert report.pop("seconds") >= 0
    assert found == turned


def test_what_other_claims_import_changes_no_draw(ending):
    """Hypothesis draws from the constants of the modules that are loaded: each twin is in a process of its own."""
    first, last = (by_label(ending.folder / "out.json")[label] for label in ("draws", "late"))
    assert len(first["points"]) > 50
    assert (first["worst"], first["points"]) == (last["worst"], last["points"])


def test_verdicts_on_claims_that_cannot_be_checked(ending):
    assert ending.status == 1
    reports = by_label(ending.folder / "out.json")
    nowhere = reports["nowhere"]
    assert nowhere["verdict"] == "vacuous"
    assert nowhere["rejected"] > 2
    assert f"{nowhere['rejected']} of {nowhere['rejected']} instances fail the assumptions" in nowhere["reason"]
    for label, why in {"nan": "not a number", "raises": "ZeroDivisionError: no side to see"}.items():
        assert reports[label]["verdict"] == "inconclusive"
        assert why in reports[label]["reason"]
        assert reports[label]["worst"]["instance"] == {"value": 1.0}
    assert reports["rejects"]["verdict"] == "inconclusive"
    assert "The check itself failed" in reports["rejects"]["reason"]
    assert reports["plain"]["verdict"] == "upheld"
    out = one_line(ending.out)
    assert "nowhere: vacuous, expected upheld." in out
    assert "raises: inconclusive, expected upheld. The claim could not be evaluated on the instance" in out
    assert "not as expected: nowhere, nan, raises, rejects, leaves." in out


def test_what_a_side_prints_stays_in_its_process(ending):
    assert by_label(ending.folder / "out.json")["loud"]["verdict"] == "upheld"
    assert "NOISE" not in ending.out + ending.err


def test_a_killed_process_costs_its_own_claim_one_more_try(planted, tmp_path, ending):
    options = ["--jobs", "2", "--seed", "1", "--json", "out.json"]
    process = start([*planted, "alone", "plain", "other", "false", *options], cwd=tmp_path)
    wait_for((tmp_path / "pid").exists)
    first = int((tmp_path / "pid").read_text())
    os.kill(first, signal.SIGKILL)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 0, out + progress
    assert progress.count("checking it again") == 1
    assert "alone: its process died (killed by SIGKILL" in progress
    assert int((tmp_path / "pid").read_text()) != first
    assert [report["verdict"] for report in stored()["reports"]] == ["upheld", "upheld", "upheld", "refuted"]
    assert [report["label"] for report in stored()["reports"]] == ["alone", "plain", "other", "false"]
    assert by_label()["plain"]["points"] != by_label(ending.folder / "out.json")["plain"]["points"]  # of another seed


@pytest.mark.parametrize("moment", [0.0, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in (0.7, 1.4, 2.1))])
def test_a_process_killed_at_any_moment_changes_no_report(light, tmp_path, moment):
    process = start([*LIGHT, "--seed", "3", "--jobs", "2", "--json", "out.json"], cwd=tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(workers(children)) == 2)
    time.sleep(moment)
    for worker in workers(children)[:1]:
        os.kill(worker, signal.SIGKILL)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 0, out + progress
    found, expected = by_label(tmp_path / "out.json"), by_label(light.folder / "out.json")
    for report in (*found.values(), *expected.values()):
        report.pop("seconds")
    assert found == expected


def workers(children):
    """Those that check claims, of the children of any thread."""
    numbers = [number for file in children.parents[1].glob("*/children") for number in file.read_text().split()]
    return sorted(int(n) for n in numbers if b"serve()" in Path(f"/proc/{n}/cmdline").read_bytes())


def test_a_claim_that_kills_its_process_twice_is_inconclusive(ending):
    reports = by_label(ending.folder / "out.json")
    assert [reports[label]["verdict"] for label in ("plain", "loud", "false")] == ["upheld", "upheld", "refuted"]
    assert reports["leaves"]["verdict"] == "inconclusive"
    assert reports["leaves"]["reason"] == "The process that checked it died 2 times: exit status 3."
    assert ending.err.count("leaves: its process died (exit status 3); checking it again") == 1


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(True, id="the whole group, as a terminal does"),
        pytest.param(False, id="the process", marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupt_keeps_what_is_finished(planted, tmp_path, group):
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    arguments = [*planted, "--jobs", "1", "plain", "alone", "other", *outputs]
    process = start(arguments, cwd=tmp_path, start_new_session=True)
    wait_for((tmp_path / "pid").exists)
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 130, progress
    assert "Traceback" not in progress
    assert "checking it again" not in progress
    assert "Interrupted. Not checked: alone, other." in out
    assert "plain" in out
    assert [report["label"] for report in stored()["reports"]] == ["plain"]
    assert stored()["unchecked"] == ["alone", "other"]
    assert "Not checked: alone, other." in (tmp_path / "out.html").read_text()
    assert "`plain`" in (tmp_path / "out.md").read_text()
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())), seconds=10)


def test_processes_leave_when_the_command_is_killed(planted, tmp_path):
    (tmp_path / "temporary").mkdir()
    process = start([*planted, "alone"], cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "temporary")})
    wait_for((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    assert alive(worker)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not alive(worker), seconds=10)
    assert not list((tmp_path / "temporary").iterdir())


def test_one_claim_is_shown_in_full(planted, capsys):
    assert main([*planted, "--show", "false"]) == 0
    out = one_line(capsys.readouterr().out)
    for text in (
        "x <= 2x | x_1 > 0", "Three times as much is not at most twice as much.", "by hand", "x > 0",
        "refuted (certified)", "in exact arithmetic", "Take <x> = 1.",
        "value = 1.0", "left side 3.0", "right side 2.0", "margin 1 of the scale", "false/half: refuted",
    ):  # fmt: skip
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tv-gup"], "No claim is called tv-gup: did you mean tv-gap"),
        (["--show", "tv_bias_root_n"], "did you mean tv-bias-root-n"),
        (["zzz"], "No claim is called zzz. `robust-rlhf verify --list` names all"),
        (["--jobs", "0"], "--jobs is a number of processes and must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--json", "none/out.json"], "--json needs a file in an existing folder, got none/out.json"),
        (["--html", "."], "--html needs a file in an existing folder"),
        (["tv-gap", "tv-dual", "--show", "tv-gap"], "--show tells about one claim: leave out tv-dual."),
        (["--replay", "out.json", "--html", "out.html"], "--html stores what a check finds"),
        (["--replay", "out.json"], "out.json cannot be read: No such file or directory."),
        (["--registry", "nonsense:CLAIMS"], "registry must be MODULE:NAME of a tuple of claims, got 'nonsense:CLAIMS'"),
        (["--registry", "math:pi"], "--registry"),
        (["--registry", "proofs_check:__all__"], "which holds others"),
    ],
)
def test_bad_requests_get_one_sentence_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_help_and_list(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()  # not a terminal: one line each, for grep
    assert [line.split()[0] for line in listed] == [claim.label for claim in CLAIMS]


@pytest.fixture
def run(planted, ending):
    """What a run with an upheld claim, a refuted one and two broken ones stores."""
    reports = by_label(ending.folder / "out.json")
    store(stored(ending.folder / "out.json") | {"reports": [reports[k] for k in ("plain", "false", "raises", "nan")]})
    return planted


def store(data, path="out.json"):
    with open(path, "w") as file:
        json.dump(data, file)


def rewritten(change):
    data = stored()
    change(data)
    store(data)


def test_stored_instances_are_confirmed(run, capsys):
    assert main([*run, "--replay", "out.json"]) == 0
    out = capsys.readouterr().out
    assert "false (refuted): both sides are the same: 3.0 and 2.0; exact arithmetic still refutes it." in out
    assert "raises (inconclusive): a side raised 'ZeroDivisionError: no side to see'" in out
    assert "nan (inconclusive): both sides are the same: nan and 2.0." in out
    store(by_label()["false"], "one.json")
    assert main([*run, "--replay", "one.json"]) == 0
    assert main([*run, "--replay", "out.json", "plain"]) == 0
    assert main([*run, "--replay", "one.json", "plain"]) == 2


def test_stored_instances_that_no_longer_say_the_same_are_told(run, capsys):
    rewritten(lambda data: data["reports"][0]["worst"].update(rhs=2.5))
    assert main([*run, "--replay", "out.json"]) == 1
    out = capsys.readouterr().out
    assert "plain (upheld): both sides are different: 1.0 and 2.5, now 1.0 and 2.0." in out
    assert "Different: plain." in out
    rewritten(lambda data: data["reports"][0]["worst"].update(rhs=2.0 + 1e-12))
    assert main([*run, "--replay", "out.json"]) == 0
    assert "up to rounding" in capsys.readouterr().out


@pytest.mark.usefixtures("run")
def test_a_refutation_that_exact_arithmetic_takes_back_is_told(capsys, tmp_path, monkeypatch):
    (tmp_path / "changed").mkdir()
    changed = plant(tmp_path / "changed", monkeypatch, PLANTED.replace("3 * x.value > 2 * x.value", "False"))
    assert main([*changed, "--replay", str(tmp_path / "out.json"), "false"]) == 1
    assert "exact arithmetic no longer refutes it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.update(format=99), "has format 99, this version reads 1"),
        (lambda data: data.pop("format"), "has format None"),
        (lambda data: data.pop("reports"), "holds no reports"),
        (lambda data: data.update(reports=[1]), "holds no reports"),
        (lambda data: data["reports"][0].pop("label"), "a report has no label"),
        (lambda data: data["reports"][0].update(label="gone"), "'gone', which is no claim"),
        (lambda data: data["reports"][0].pop("verdict"), "the report on plain has no verdict"),
        (lambda data: data["reports"][0].update(verdict="proved"), "'proved' is not a valid Verdict"),
        (lambda data: data["reports"][0]["worst"].pop("lhs"), "the report on plain has no lhs"),
        (lambda data: data["reports"][0]["worst"].update(lhs="much"), "does not fit the claim plain"),
        (lambda data: data["reports"][0]["worst"]["instance"].update(size=3), "does not fit the claim plain"),
        (lambda data: data["reports"][0]["worst"].update(instance=[1.0]), "does not fit the claim plain"),
        (lambda data: data["reports"][1]["worst"]["instance"].update(value="big"), "value must be a float, got a str"),
    ],
)
def test_damaged_files_are_named_and_nothing_else_happens(run, damage, message, capsys):
    rewritten(damage)
    assert main([*run, "--replay", "out.json"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"7", b"", b"[" * 100_000])
def test_files_that_are_no_reports(content, tmp_path, capsys):
    path = tmp_path / "out.json"
    path.write_bytes(content)
    assert main(["--replay", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


class Page(HTMLParser):
    """The structure of a page; every element that is opened has to be closed."""

    EMPTY = ("meta", "link", "br")
    SHAPES = ("path", "use", "defs", "rect", "image")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.headings, self.tags, self.text = [], [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src") if name in found]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_and_the_table_of_verdicts(ending):
    """Of upheld claims, one of them with a curve, of broken ones and a refuted one."""
    html, table = ((ending.folder / name).read_text() for name in ("out.html", "out.md"))
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert set(ENDING) <= set(anchors)
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert not re.search(r"https?://", html)
    assert (tags.count("h1"), tags.count("h2"), tags.count("section")) == (1, len(ENDING), len(ENDING))
    figures = [found for tag, found in page.tags if tag == "svg"]
    assert [found["role"] for found in figures] == ["img"] * 7  # nothing can be drawn of a claim that is broken
    assert figures[2]["aria-label"].startswith("other: left side 1 to 128, right side 2 to 256, value from 1 to 128")
    for text in ("✓ upheld", "✗ refuted", "? inconclusive (expected: upheld)", "Take <x> = 1.", "false/half: refuted"):
        assert text in one_line(page.text)
    assert "unparsed" not in html
    assert "mathdefault" not in html
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.count(" | ") for row in rows] == [7] * len(ENDING)
    assert r"| x <= 2x \| x\_1 > 0 | refuted | certified |" in rows[-1]
    assert re.search(r"\| 1 of 1 \| by hand \|$", rows[-1])
