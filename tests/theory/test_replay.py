"""Stored instances of claims are looked at again, and files that hold none are named."""

import json

import pytest
from planted_claims import PLANTED, by_label, plant, stored

from proofs_check.__main__ import main


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
    assert "false (refuted): unchanged since stored, left 3.0, right 2.0; exact arithmetic still refutes it." in out
    assert "raises (inconclusive): a side raised 'ZeroDivisionError: no side to see'" in out
    assert "nan (inconclusive): unchanged since stored, left nan, right 2.0." in out
    store(by_label()["false"], "one.json")
    assert main([*run, "--replay", "one.json"]) == 0
    assert main([*run, "--replay", "out.json", "plain"]) == 0
    assert main([*run, "--replay", "one.json", "plain"]) == 2


def test_stored_instances_that_no_longer_say_the_same_are_told(run, capsys):
    rewritten(lambda data: data["reports"][0]["worst"].update(rhs=2.5))
    assert main([*run, "--replay", "out.json"]) == 1
    out = capsys.readouterr().out
    assert "plain (upheld): changed, stored left 1.0, right 2.5, now left 1.0, right 2.0." in out
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
