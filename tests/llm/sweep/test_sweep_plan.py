"""What a sweep is asked for: read, planned without computing, and explained where it makes no sense."""

import json

import pytest
import yaml
from small_sweeps import SETTINGS, swept

from llm.sweep.plan import parse_sweep, read_sweep, sweep_folder
from robust_rlhf import main


def test_a_plan_writes_nothing_and_computes_nothing(tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(SETTINGS))
    status = main(
        ["sweep", "--config", str(path), "--output", str(tmp_path / "r"), "--cache", str(tmp_path / "c"), "--dry-run"]
    )
    assert status == 0
    shown = capsys.readouterr().out
    assert "20 trainings, 0 of them done" in shown
    assert "tv:0.2" in shown
    assert {file.name for file in tmp_path.iterdir()} == {"sweep.yaml"}


def test_the_command_reports_failures_by_its_status(tmp_path, cache, capsys):
    settings = {**SETTINGS, "grid": [{"ambiguity": "erm"}, {"ambiguity": "erm", "batch_size": 4000}]}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(settings))
    arguments = ["sweep", "--config", str(path), "--output", str(tmp_path / "r"), "--cache", str(cache), "--jobs", "1"]
    assert main(arguments) == 1
    assert "1 trainings done, 0 were done before, 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "models must be a mapping"),
        ({"models": {"x": {"kind": "half"}}}, "must say its kind, head"),
        ({"models": {"x": {"kind": "head"}}}, "lacks its model"),
        ({"models": {"x": {"kind": "head", "model": "tiny", "dtype": "half"}}}, "dtype must be one of"),
        ({"models": {"x": {"kind": "head", "model": "tiny", "epochs": "1e1"}}}, "epochs of a head must be a number"),
        ({"models": {"x": {"kind": "full", "colour": 1}}}, "unknown setting 'colour'"),
        ({"eval_pairs": 0}, "eval_pairs must be"),
        ({"grid": {"ambiguity": "tv:{radius}"}}, "asks for radii"),
        ({"grid": {"ambiguity": "nothing:1"}}, "unknown ambiguity"),
        ({"grid": {"ambiguity": "chi2:0.1@tv:0.2"}}, "needs one \\?"),
        ({"grid": {"ambiguity": "chi2:?@ess=2"}}, "effective share"),
        ({"grid": {"regime": "none"}}, "unknown regime 'none'"),
        ({"grid": {"batch_size": 0}}, "must be positive"),
        ({"grid": {"learning_rate": "fast"}}, "must be numbers"),
        ({"grid": {"colour": 1}}, "unknown setting 'colour'"),
        ({"regimes": {"x": {"noise": 1}}}, "'noise'; it takes a mapping of"),
        ({"regimes": {"x": {"label_noise": 0.7}}}, "share of wrong labels"),
        ({"final": ["first"]}, "unknown final 'first'"),
        ({"validation_share": 0}, "chosen by validation pairs"),
        ({"head": {"momentum": 1}}, "unknown setting 'momentum'"),
        ({"colour": 1}, "unknown setting 'colour'"),
    ],
)
def test_settings_that_make_no_sense_are_explained(change, said):
    with pytest.raises(ValueError, match=said):
        parse_sweep({**SETTINGS, **change})


def test_a_regime_that_does_not_fit_the_data_is_explained(tmp_path, cache):
    plain = {**SETTINGS, "grid": {"regime": "x"}}
    with pytest.raises(ValueError, match="names the source 'chat'; the training pairs have arithmetic, code"):
        swept(tmp_path, cache, settings={**plain, "regimes": {"x": {"sources": "chat"}}})
    wrong = {"sources": "code", "without_sources": "code"}
    with pytest.raises(ValueError, match="leaves no training pair"):
        swept(tmp_path, cache, settings={**plain, "regimes": {"x": wrong}})


@pytest.mark.parametrize("name", [path.stem for path in sweep_folder().glob("*.yaml")])
def test_shipped_sweeps_can_be_read(name):
    config, text = read_sweep(name)
    assert config.cells
    assert parse_sweep(yaml.safe_load(text)) == config


def test_a_sweep_that_is_not_there_lists_the_shipped_ones():
    with pytest.raises(ValueError, match="give a YAML file or one of "):
        read_sweep("nothing")
