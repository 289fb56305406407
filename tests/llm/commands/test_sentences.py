"""What a newcomer meets: sentences instead of tracebacks, folders of either kind, any terminal, and log files."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from accelerate.state import GradientState
from datasets import Dataset
from rich.console import Console
from transformers import TrainingArguments

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.judging.accuracy import render_table, summarise
from llm.kinds.reward import RewardTask, RewardTrainer
from llm.kinds.sft import SFTTask
from llm.models.loading import tiny_reward_model
from llm.policy.config import PolicyConfig
from llm.policy.run import train_policy
from llm.policy.setup import accelerator_for
from llm.run.progress import LINES, Steps, closing_lines
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training import guards
from llm.training.config import DPOConfig, RewardConfig, SFTConfig
from llm.training.run import train_run
from robust_rlhf import _PLAIN, PIPE_CLOSED, main

FLAGS = [
    "--use_cpu", "true", "--max_length", "48", "--per_device_train_batch_size", "8", "--max_steps", "2",
    "--logging_steps", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(once):
    return once("sentences-data", lambda folder: write_pairs(generate(24, seed=1), folder / "train.jsonl"))


@pytest.fixture(scope="module")
def run(once, data):
    """A run folder of a reward model, as the command leaves it."""

    def build(folder):
        flags = ["--config", "reward-tiny", "--train_file", str(data / "train.jsonl"), *FLAGS]
        assert main(["train", "reward", *flags, "--output_dir", str(folder / "run")]) == 0

    return once("sentences-run", build) / "run"


def sentence(capsys, status):
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert said[-1].startswith("robust-rlhf: ")
    assert "Traceback" not in "".join(said)
    return said[-1]


# Training from Python.


@pytest.mark.parametrize(("task", "config"), [(RewardTask, RewardConfig), (SFTTask, SFTConfig)])
def test_plain_training_arguments_are_enough(task, config, data, tmp_path):
    """``TrainingArguments`` would drop every column that the model's forward pass does not name."""
    settings = config(model="tiny", train_file=str(data / "train.jsonl"), max_length=48, ambiguity="tv:0.2")
    arguments = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True)
    assert arguments.remove_unused_columns
    assert train_run(task(settings), arguments).steps == 1


def test_trainers_take_the_text_of_a_set(tmp_path):
    pairs = generate(8, seed=2)
    model, tokenizer = tiny_reward_model((pair.chosen for pair in pairs), max_length=48)
    common = {"model": model, "train_dataset": encode_pairs(pairs, tokenizer, max_length=48)}
    common |= {"args": TrainingArguments(str(tmp_path), use_cpu=True), "data_collator": PairCollator(tokenizer)}
    columns = {"source": [pair.source for pair in pairs]}
    assert str(RewardTrainer(ambiguity="tv:0.2,max_ratio=4", **common).ambiguity) == "tv:0.2,max_ratio=4"
    assert RewardTrainer(ambiguity="erm", **common).ambiguity is None
    by_source = RewardTrainer(ambiguity="tv:0.2,by=source", columns=columns, **common)
    assert by_source.ambiguity.take(range(8)) is not None
    common["train_dataset"] = Dataset.from_list([common["train_dataset"][row] for row in range(8)])
    batch = next(iter(RewardTrainer(ambiguity="erm", **common).get_train_dataloader()))
    assert "index" in batch  # a data set of the library keeps its columns too
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        RewardTrainer(ambiguity="tv:2", **common)


# Requests that cannot be met are refused before anything is read: no file here exists.

KINDS = {"reward": [], "sft": [], "dpo": ["--model", "nowhere"], "policy": ["--reward_model", "nowhere"]}


@pytest.mark.parametrize(
    ("argv", "meant"),
    [(["train", "reward", "--config", "reward-minlm"], "reward-minilm"), (["sweep", "--config", "headss"], "heads")],
)
def test_a_misspelt_configuration_is_answered_with_the_one_that_was_meant(argv, meant, capsys):
    assert sentence(capsys, main(argv)).endswith(f", did you mean {meant!r}?")


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "tensorboard"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_that_is_not_installed_is_named(kind, tracker, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guards, "get_available_reporting_integrations", list)
    monkeypatch.setattr(guards, "get_available_trackers", list)
    flags = [*KINDS[kind], "--train_file", "nowhere", "--report_to", tracker, "--output_dir", str(tmp_path / "run")]
    assert f"pip install {tracker}" in sentence(capsys, main(["train", kind, *flags]))
    assert not (tmp_path / "run").exists()


def test_a_tracker_is_looked_for_by_demos_and_from_python_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guards, "get_available_reporting_integrations", list)
    monkeypatch.setattr(guards, "get_available_trackers", list)
    demo = ["demo", "--data", "nowhere", "--output", str(tmp_path / "demo"), "--set", "report_to=wandb"]
    assert "pip install wandb" in sentence(capsys, main(demo))
    arguments = TrainingArguments(str(tmp_path / "run"), report_to="wandb", use_cpu=True)
    with pytest.raises(ValueError, match="pip install wandb"):
        train_run(RewardTask(RewardConfig(model="tiny", train_file="nowhere")), arguments)
    with pytest.raises(ValueError, match="pip install wandb"):
        train_policy(PolicyConfig(train_file="nowhere", reward_model="nowhere"), arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_other_requests_that_cannot_be_met(kind, tmp_path, capsys):
    flags = [*KINDS[kind], "--train_file", "nowhere", "--output_dir", str(tmp_path / "run")]
    said = sentence(capsys, main(["train", kind, *flags, "--report_to", "my_tracker"]))
    assert "report_to=my_tracker" in said
    assert "wandb" in said
    said = sentence(capsys, main(["train", kind, *flags, "--train_sampling_strategy", "group_by_length"]))
    assert "one length only" in said


# A run folder stands for its model, and the model's folder for its run.


def test_a_run_is_as_good_as_its_model(run, data, tmp_path, capsys):
    suite, shown = str(data / "train.jsonl"), []
    for folder in (run, run / "model"):
        assert main(["evaluate", str(folder), "--suite", suite]) == 0
        out = capsys.readouterr().out
        shown.append(out[out.index("suite / group") :])
    assert shown[0] == shown[1]
    assert main(["evaluate", str(run / "model"), "--suite", suite, "--against", str(run)]) == 0
    flags = ["--model", str(run), "--train_file", suite, *FLAGS, "--dry_run", "true"]
    assert main(["train", "reward", *flags, "--output_dir", str(tmp_path / "more")]) == 0
    capsys.readouterr()
    verdicts = []
    for folder in (run, run / "model"):
        assert main(["doctor", str(folder), "--json"]) in (0, 1)
        verdicts.append(json.loads(capsys.readouterr().out))
    assert verdicts[0] == verdicts[1]
    inside = os.getcwd()
    try:
        os.chdir(run / "model")
        assert main(["doctor", "."]) in (0, 1)
    finally:
        os.chdir(inside)


def test_an_unfinished_run_is_no_model(tmp_path, data, capsys):
    (tmp_path / "settings.json").write_text("{}")
    said = sentence(capsys, main(["evaluate", str(tmp_path), "--suite", str(data / "train.jsonl")]))
    assert "no finished model" in said
    assert "--resume" in said


def test_a_policy_is_updated_after_a_run_that_stopped_within_an_accumulation(tmp_path):
    GradientState()._set_sync_gradients(False)  # noqa: FBT003
    assert accelerator_for(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")).sync_gradients


# Answers that are no texts.


@pytest.mark.parametrize(
    ("answer", "said"), [(5, "the number 5"), (0.5, "the number 0.5"), (True, "bool"), ([1], "int")]
)
def test_an_answer_that_is_no_text_is_named_with_its_line(answer, said, tmp_path, capsys):
    rows = [{"prompt": f"Which, {n}?", "chosen": "this", "rejected": "that"} for n in range(3)]
    rows[1]["chosen"] = answer
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sentence(capsys, main(["data", "show", str(tmp_path / "data.jsonl")]))
    assert "line 2: " in found
    assert said in found


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_answer_is_counted(missing, tmp_path, capsys):
    rows = [{"prompt": f"Which, {n}?", "chosen": "this", "rejected": "that"} for n in range(3)]
    rows[1]["rejected"] = missing
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "show", str(tmp_path / "data.jsonl")]) == 0
    assert "1 empty answer" in capsys.readouterr().out


# Terminals and pipes.


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_terminals_without_some_signs_get_the_nearest(encoding, data, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(["data", "show", str(data / "train.jsonl")]) == 0
    sys.stdout.write("".join(_PLAIN))
    sys.stdout.write("\N{MINUS SIGN}7.5 \N{SNOWMAN}\n")
    sys.stdout.flush()
    text = written.getvalue().decode(encoding)
    assert "24 pairs" in text
    assert text.endswith("-7.5 ?\n")


def test_a_reader_who_has_left_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["--help"]) == PIPE_CLOSED
        monkeypatch.undo()


# What reaches a log file.


def test_steps_in_a_log_file_are_lines_and_on_a_terminal_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with Steps(total=200, desc="training", file=stream, mininterval=0) as bar:
            for step in range(200):
                bar.set_postfix({"mean_loss": f"{step}"})
                bar.update()
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert LINES <= len(lines) <= LINES + 2
    assert "200/200" in lines[-1]
    assert "mean_loss=199" in lines[-1]
    assert sum("200/200" in line for line in lines) == 1
    assert "\r" in terminal.getvalue()
    silent = io.StringIO()
    with Steps(total=2, disable=True, file=silent) as bar:
        bar.update(2)
    assert silent.getvalue() == ""


def test_a_run_ends_by_saying_where_its_model_is_and_what_is_next(data, tmp_path, capsys):
    output = tmp_path / "a folder whose name alone is longer than a line of eighty columns is wide, as some are" / "run"
    flags = ["--config", "reward-tiny", "--train_file", str(data / "train.jsonl"), *FLAGS, "--output_dir", str(output)]
    assert main(["train", "reward", *flags, "--disable_tqdm", "true"]) == 0
    model, following = capsys.readouterr().out.splitlines()[-2:]
    assert model == f"model: '{output}/model'"
    assert following.startswith(f"next: robust-rlhf evaluate '{output}/model' --suite ")
    assert following.endswith(f"robust-rlhf doctor '{output}'")


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (RewardConfig(model="m"), ""),
        (SFTConfig(model="tiny"), " --reference none"),
        (DPOConfig(model="tiny"), ""),
        (PolicyConfig(model="runs/sft/model"), " --reference runs/sft/model"),
    ],
)
def test_policies_are_evaluated_against_their_start(config, reference, tmp_path):
    assert f" --suite FILE{reference};" in closing_lines(config.kind, config.model, tmp_path)


def test_the_table_of_an_evaluation_fits_into_a_terminal():
    table = render_table({"ood_shifted_mixture": summarise(generate(400, seed=1), [1.0] * 400)})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "tail" in text.splitlines()[2]
    assert all(shown in text for shown in (", 100.0]", "  arithmetic/add ", "ood_shifted_mix"))
    assert max(map(len, text.splitlines())) <= 80
