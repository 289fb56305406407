"""All commands as one set: what each takes, in both spellings; what it refuses, and how; what it loads to say so."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from transformers import HfArgumentParser, TrainingArguments

import robust_rlhf
from dro_core.command_line.completion import script
from dro_core.command_line.parser import STATUSES, UsageError
from llm.kinds.settings import config_of
from llm.run.kinds import KINDS
from llm.training.config import ConfigError, RunConfig
from llm.training.flags.ours import EVERYDAY, GROUPS, settings_parser
from llm.training.flags.theirs import _loaded, all_flags, declared
from llm.training.settings import parse_train

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "transformers", "accelerate", "datasets", "peft", "pandas", "matplotlib", "statsmodels", "cvxpy"}
SCREENS, LINES, COLUMNS = 2, 50, 100


@cache
def parsers():
    """Every parser that takes flags, by the words before them."""
    found = {}

    def walk(words, parser):
        if parser.commands:
            for name, inner in parser.commands.items():
                walk((*words, name), inner)
        else:
            found[words] = parser

    walk((), robust_rlhf.whole())
    return found


NAMES = sorted(parsers())
TITLES = [" ".join(words) for words in NAMES]


def flags(parser):
    return sorted(flag for flag in parser.flags if flag.startswith("--") and "help" not in flag)


def value_of(action):
    """Words that the action takes."""
    if action.nargs == 0:
        return []
    if action.choices:
        return [str(next(iter(action.choices)))]
    for text in ("1", "tv:0.2", "a=b"):
        try:
            (action.type or str)(text)
        except (argparse.ArgumentTypeError, ValueError):
            continue
        return [text]
    raise AssertionError(action)


def parsed(parser, words):
    """What is told besides what the command cannot do without."""
    needed = [a for a in parser.actions if a.required and not set(a.option_strings) & set(words)]
    told = [word for a in needed for word in (a.option_strings[:1] + value_of(a))]
    places = [word for word in told if not word.startswith("-")] if all(not a.option_strings for a in needed) else told
    return vars(parser.parse_args([*places, *words]))


@pytest.mark.parametrize("name", NAMES, ids=TITLES)
def test_every_flag_in_both_spellings(name):
    parser = parsers()[name]
    for flag in flags(parser):
        assert "_" not in flag
        action = parser.flags[flag]
        words = [] if flag.startswith("--no-") else value_of(action)
        told = [parsed(parser, [f"--{spelt}", *words]) for spelt in (flag[2:], flag[2:].replace("-", "_"))]
        assert told[0] == told[1]
        assert action.dest in told[0]


@pytest.mark.parametrize("name", NAMES, ids=TITLES)
def test_every_flag_and_choice_is_meant_where_it_is_mistyped(name):
    parser = parsers()[name]
    for flag in flags(parser)[::7] if name[0] == "train" else flags(parser):
        for wrong in (f"{flag}x", flag[:4] + flag[5:] if len(flag) > 6 else f"{flag}y"):
            if wrong not in parser.flags and wrong.rstrip("-") not in parser.flags:
                with pytest.raises((UsageError, ConfigError), match=f"no flag {wrong}, did you mean --"):
                    parser.parse_args([wrong, "1"])
    for action in parser.actions:
        if action.choices and action.option_strings:
            choice = str(next(iter(action.choices)))
            with pytest.raises((UsageError, ConfigError), match=rf"'{choice}x' is none of .*, did you mean '\w"):
                parser.parse_args([action.option_strings[-1], f"{choice}x"])


@pytest.mark.parametrize("name", NAMES, ids=TITLES)
def test_what_is_written_is_called_output(name):
    parser = parsers()[name]
    for flag in ("--output", "-o"):
        assert ("--output" in parser.flags) == (flag in parser.flags)
    assert not {"--output-dir", "--out", "--output-file", "--target"} & (set(parser.flags) - {"--output-dir"})
    assert ("--output-dir" in parser.flags) == (name[0] == "train")  # as it was always called


TOLD = """
import contextlib, io, os, sys
os.environ["COLUMNS"] = sys.argv[1]
import robust_rlhf
for line in sys.stdin.read().splitlines():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = robust_rlhf.main(line.split())
        except SystemExit as end:
            status = end.code
    heavy = ",".join(sorted(HEAVY & set(sys.modules))) or "nothing"
    print(line, status, len(out.getvalue().splitlines()), len(err.getvalue().splitlines()), heavy, sep=";")
    sys.stdout.flush()
""".replace("HEAVY", repr(HEAVY))
HELPED = [("",), *((name,) for name in robust_rlhf.COMMANDS), *NAMES]
REFUSED = [
    "trian", "train", "train rewrad", "train --config x", "train reward", "train reward --train-file x",
    "train dpo bare", "train reward --lerning-rate 1", "train policy --kl_inn loss",
    "train dpo --refrence auto", "train reward --help me", "train sft --dtype float23",
    "train sft --max-length wide", "train reward --resume maybe", "sweep --confg x", "sweep",
    "pipeline --dryrun", "evaluate m", "data shwo x", "data convert x", "data builtin --train many", "doctor",
    "serve", "report x --where y", "models fetch", "simulate bais", "simulate bias --n 0",
    "simulate bias --grid quik", "score x", "verify --budget fulll", "verify --jobs few", "verify nothing",
    "env --jsno", "completion fish", "export x --to y",
]  # fmt: skip


def test_help_and_refusals_load_nothing_that_takes_long():
    """In one process: whatever the first of them loads would be seen at all that follow."""
    lines = (
        [" ".join((*words, "--help")).strip() for words in HELPED]
        + REFUSED
        + ["train reward --help all", "", "--version"]
    )
    done = subprocess.run(
        [sys.executable, "-c", TOLD, str(COLUMNS)], input="\n".join(lines), capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    told = [line.split(";") for line in done.stdout.splitlines()]
    assert [line for line, *_ in told] == lines, done.stderr
    for line, status, out, err, heavy in told:
        assert heavy == "nothing", line
        assert (status, int(err)) == (("2", 1) if line in REFUSED else ("0", 0)), line
        if line in REFUSED:
            assert out == "0", line
        elif line != "train reward --help all":
            assert 0 < int(out) <= SCREENS * LINES, line


def test_the_front_page_names_every_command_and_every_status(capsys):
    assert robust_rlhf.main([]) == 0
    page = capsys.readouterr().out
    assert all(f"\n  {name} " in page for name in robust_rlhf.COMMANDS)
    assert all(f"\n  {status} " in page for status in STATUSES)
    assert set(robust_rlhf.whole().commands) == set(robust_rlhf.COMMANDS)


# train: our settings, and those of transformers.


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_in_a_group_and_shown(kind):
    config = config_of(kind)
    assert {field.metadata["group"] for field in fields(config)} <= set(GROUPS)
    shown = {action.dest for action in settings_parser(config).actions if action.help is not argparse.SUPPRESS}
    rare = {field.name for field in fields(config) if field.metadata["rare"]}
    assert shown >= {field.name for field in fields(config)} - rare | {"output_dir", "config"}
    everything = settings_parser(config, everything=True)
    assert {action.dest for action in everything.actions} >= set(declared()) | rare
    assert all(action.help for action in everything.actions)


def test_settings_of_transformers_are_read_as_they_are():
    theirs = HfArgumentParser(TrainingArguments)
    assert list(declared()) == [field.name for field in fields(TrainingArguments) if field.init]
    assert all_flags() == {flag for flag in theirs._option_string_actions if "_" not in flag} - {"--help", "-h"}
    assert set(EVERYDAY) <= set(declared())
    for name, row in _loaded().items():  # what is taken where the source cannot be read
        assert declared()[name].text == row.text
        if declared()[name].default is not None:
            assert declared()[name].default == row.default


@pytest.mark.parametrize("spelt", ["-", "_"])
def test_flags_of_both_kinds_are_read_alike(spelt, tmp_path):
    words = [
        "--train_file",
        "a_b.jsonl",
        "--output_dir",
        str(tmp_path / "my_run"),
        "--max_length=40",
        "--use_cpu",
        "--resume",
    ]
    words += ["--no_disable_dropout", "--no_dataloader_pin_memory", "--learning_rate", "1e-3", "--report_to=none"]
    flags_ = [word.replace("_", spelt) if word.startswith("--") and "=" not in word else word for word in words]
    config, arguments = parse_train(config_of("reward"), flags_)
    assert (config.train_file, config.max_length, config.resume, config.disable_dropout) == (
        "a_b.jsonl",
        40,
        True,
        False,
    )
    assert (arguments.learning_rate, arguments.dataloader_pin_memory) == (1e-3, False)
    assert arguments.output_dir == str(tmp_path / "my_run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--eval-strategy", "stpes"], "'stpes' is none of no, steps, epoch, did you mean 'steps'?"),
        (["--lambda", "0.5"], "there is no flag --lambda"),  # of policies alone
        (["--no-merge-adapter", "true"], "takes nothing behind it"),
        (["--seed", "one"], "--seed"),
    ],
)
def test_values_that_transformers_lacks_are_refused_as_ours_are(words, said):
    with pytest.raises(ConfigError) as error:
        parse_train(config_of("reward"), ["--train-file", "x", "--output", "y", "--use-cpu", *words])
    assert said in str(error.value)


def test_a_policy_takes_lambda_by_either_name():
    parser = settings_parser(config_of("policy"))
    told = [vars(parser.parse_args([flag, "0.5"])) for flag in ("--lambda", "--lambda_")]
    assert told == [{"lambda_": 0.5}] * 2


def test_a_setting_without_a_group_is_not_overlooked():
    assert all(set(field.metadata) == {"group", "help", "alias", "rare"} for field in fields(RunConfig))


# Completion.

ASKED = {
    "robust-rlhf tr": "train",
    "robust-rlhf train rew": "reward",
    "robust-rlhf train reward --learning-ra": "--learning-rate",
    "robust-rlhf train reward --dtype bf": "bfloat16",
    "robust-rlhf sweep --outp": "--output",
    "robust-rlhf simulate bias --grid q": "quick",
}
BASH = """
source "$1"; shift
for line in "$@"; do
    COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _shtab_robust_rlhf; echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path):
    (tmp_path / "script").write_text(script("bash", robust_rlhf.whole()))
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", str(tmp_path / "script"), *ASKED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(ASKED.values()), done.stderr


def test_zsh_gets_all_commands():
    text = script("zsh", robust_rlhf.whole())
    assert text.startswith("#compdef robust-rlhf")
    assert all(f"{name}:'" in text for name in robust_rlhf.COMMANDS)


def test_without_shtab_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert robust_rlhf.main(["completion", "bash"]) == 2
    assert "pip install 'robust-rlhf[completion]'" in capsys.readouterr().err
