"""A set that is larger than the data bear: what the doctor says of real logs, and who else repeats it."""

from __future__ import annotations

import json
import re

import pytest
from command_lines import flags
from linear_heads import head_trainer, noisy
from record_runs import unpack
from results_samples import write_sample

from llm.adversary.schedule import RadiusSchedule
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.doctor.diagnosis import Severity
from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from llm.models.card import model_card
from llm.report import build_content
from robust_rlhf import main

TITLE, SUBJECT = "the set is larger than the data can bear", "the radius that the data bear"
SETS = [
    "tv:0.3",
    "tv:0.01",
    "tv:auto=0.5",
    "cvar:0.3",
    "cvar:0.95",
    pytest.param("chi2:0.5", marks=pytest.mark.exhaustive),
]
BEYOND = {"tv:0.3", "cvar:0.3", "chi2:0.5"}
PAIRS = noisy(1856, seed=2, strength=0.8)


@pytest.fixture
def log(tmp_path):
    """The log of a linear reward on noisy pairs that starts plainly."""

    def trained(spec):
        aside = PAIRS[:256] if "auto" in spec else None
        trainer = head_trainer(tmp_path / "head", spec, train=PAIRS[256:], aside=aside, learning_rate=0.3)
        trainer.adversary.schedule = RadiusSchedule(plain_share=0.3)
        trainer.train()
        return trainer.state.log_history

    return trained


def with_log(folder, spec, history, **settings):
    """A recorded run whose set and log are these."""
    record = json.loads((folder / "run.json").read_text())
    record |= {"history": history, "effective_batch": 64, "steps": 200, "ledger": None}
    record["config"] |= {"ambiguity": spec, **settings}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def found_in(folder):
    return {finding.title: finding for finding in diagnose(read_run(folder)).findings}


@pytest.mark.parametrize("spec", SETS)
def test_it_is_found_where_the_set_reaches_beyond_and_nowhere_else(tmp_path, log, spec):
    folder = with_log(unpack("fresh erm", tmp_path), spec, log(spec))
    found = found_in(folder).get(TITLE)
    assert (found is not None) == (spec in BEYOND)
    if found is None:
        assert SUBJECT in diagnose(read_run(folder)).checked
        return
    assert found.severity is Severity.PROBLEM
    name = "alpha" if "cvar" in spec else "rho"
    assert f"at {name} .{spec.split('.')[1]} an adversary explains every label by noise" in found.evidence
    borne = [float(part) for part in re.findall(r"[.\d]+", found.evidence.split("about ")[1].split(" (")[0])]
    assert borne[1] < borne[0] < borne[2]
    # Of signs that are right with the accuracy of the best reward, some 62 %, a radius of at most .12 is borne.
    assert borne[2] < 0.2 if name == "rho" else borne[1] > 0.6
    assert f"{spec.split(':')[0]}:auto=0.5" in found.remedy


def test_a_run_that_learned_nothing_is_warned_and_told_to_train_plainly_first(tmp_path, log):
    rows = [row for row in log("tv:0.3") if "mean_loss" in row and row["step"] % 4 == 0]
    for k, row in enumerate(rows):
        row["collapse_radius"] = 0.02 * (k % 5 == 0)
    found = found_in(with_log(unpack("fresh erm", tmp_path), "tv:0.3", rows))[TITLE]
    assert found.severity is Severity.WARNING
    assert "[0, " in found.evidence
    assert "train with --ambiguity erm" in found.remedy


@pytest.mark.parametrize(
    ("name", "reason"), [("healthy tv", "no logged step has what its margins bear"), ("healthy erm", "no adversary")]
)
def test_logs_of_earlier_versions_and_plain_runs_are_not_judged(tmp_path, name, reason):
    diagnosis = diagnose(read_run(unpack(name, tmp_path)))
    assert TITLE not in {finding.title for finding in diagnosis.findings}
    assert reason in diagnosis.unchecked[SUBJECT]


def test_cards_and_reports_repeat_the_sentence_and_say_nothing_without_one(tmp_path):
    write_sample(tmp_path / "r", whole=True, seeds=2)
    sentence = f"{TITLE}: at rho .2 an adversary explains every label by noise"
    assert not [note for note in build_content(tmp_path / "r", families=0)["notes"] if TITLE in note]
    for path in sorted((tmp_path / "r" / "full").glob("*/run.json")):
        record = json.loads(path.read_text())
        if record["config"]["ambiguity"] == "tv:0.1" and record["seed"] == 0:
            path.write_text(json.dumps(record | {"beyond": sentence}))
    said = [note for note in build_content(tmp_path / "r", families=0)["notes"] if TITLE in note]
    assert said == [f"tv:0.1, 1 of 2 runs: {sentence}."]


@pytest.mark.slow("a model is trained until it has margins enough to judge")
def test_a_run_beyond_says_so_in_its_log_its_record_its_card_and_to_the_doctor(tmp_path, capsys, caplog):
    write_pairs(generate(832, seed=3), tmp_path / "train.jsonl")
    settings = {"config": "reward-tiny", "train_file": tmp_path / "train.jsonl", "output_dir": tmp_path / "run",
                "ambiguity": "tv:0.9", "plain_share": 0, "ramp_share": 0, "per_device_train_batch_size": 32,
                "max_length": 32, "logging_steps": 1, "disable_tqdm": True, "use_cpu": True}  # fmt: skip
    assert main(["train", "reward", *flags(settings)]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    sentence = record["beyond"]
    assert sentence.startswith(f"{TITLE}: at rho .9 an adversary explains every label by noise")
    assert caplog.text.count(sentence) == 1
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert card.count(TITLE) == 1
    assert TITLE not in model_card(record | {"beyond": None})
    earlier = {name: value for name, value in record.items() if name != "beyond"}
    assert model_card(earlier) == model_card(record | {"beyond": None})
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "run")]) == 1
    assert TITLE in " ".join(capsys.readouterr().out.split())
