"""Every command line of README and docs is carried out: as it stands, with small things in the place of large ones.

``test_snippets`` parses all of them as they are written. A command that is not carried out stands in ``NOT_HERE`` with
the tests that do it.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_snippets import WHOLE
from tiny_models import save_models

import robust_rlhf
from llm.data.corpus.corpus import generate, write_corpus
from llm.data.pairs import write_pairs

NOT_HERE = {  # how it begins -> where it is carried out
    ("models", "fetch"): "llm/run/test_places.py, from a folder: what is fetched has tens of megabytes",
    ("serve",): "llm/serving/test_server.py: it does not end by itself",
    ("demo",): "llm/commands/test_cli.py, and `make demo` in every check",
}
SMALL = {  # a word of a command -> what stands in for it
    "minilm": "models/rm",
    "smollm2": "models/start",
    "PATH": "runs/sweep",
    "full": "quick",
    "dask": "loky",
    "ray": "loky",
}
GIVEN = {"use_cpu": True, "disable_tqdm": True, "max_steps": 1, "save_strategy": "no", "logging_steps": 1}
TINY = {"model": "tiny", "max_length": 64, "per_device_train_batch_size": 8}
KINDS = {  # settings of a training that takes a second
    "sft": TINY,
    "reward": TINY,
    "dpo": TINY,
    "policy": {"max_length": 64, "max_new_tokens": 4, "prompts_per_step": 4, "samples": 2},
}
HEAD = {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 1, "batch_size": 16}
SWEEP = {"data": "builtin", "builtin": {"train": 64, "test": 20}, "models": {"tiny": HEAD},
         "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 2}}  # fmt: skip
PIPELINE = {"output_dir": "runs/rlhf", "train_file": "train.jsonl", "seeds": 1,
            "reward": {"recipe": "reward-tiny", "robust": "tv:0.2"},
            "policy": {"recipe": "policy-tiny", "robust": "tv:0.3", "model": "models/start"},
            "evaluation": {"prompts": ["test.jsonl"], "gold": "builtin"}}  # fmt: skip
SIMULATED = {
    "bias": ["--n", "4", "8"],
    "reward": ["--steps", "8", "--n", "8", "--seeds", "2"],
    "npg": ["--steps", "4", "--seeds", "2"],
    "when": ["--radius", "0.1"],
}
CHECKER = "def brief(completions, **columns):\n    return [len(text.split()) <= 10 for text in completions]\n"
CLAIMS = "from proofs_check.claims.inner.hoeffding import kl_penalty_gap\n\nCLAIMS = (kl_penalty_gap(),)\n"
OUTPUTS = ("--output_dir", "--output-dir", "--output", "-o")
COUNT = itertools.count()


def table(path: Path, head: str, rows: list[tuple[object, ...]]) -> None:
    """A CSV file."""
    pd.DataFrame(rows, columns=head.split(",")).to_csv(path, index=False)


def write_files(folder: Path) -> None:
    """The files that the pages take for granted."""
    pairs = generate(48, seed=1)
    for name in ("train", "test", "hard", "pairs", "web"):
        write_pairs(generate(48, seed=sum(map(ord, name))), folder / f"{name}.jsonl")
    asked = [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in pairs]
    table(folder / "own.csv", "question,good,bad", asked)
    table(folder / "old.csv", "prompt,chosen,rejected", asked)
    table(folder / "votes.csv", "question,response_A,response_B,label", [(*row, "A") for row in asked])
    judged = pd.DataFrame(asked, columns=["prompt", "chosen", "rejected"]).assign(turn=[1, 2] * 24)
    judged.to_parquet(folder / "judgments.parquet")
    table(folder / "answers.csv", "question,reply", [row[:2] for row in asked])
    table(folder / "problems.csv", "problem,solution", [(f"What is {k} + 1?", k + 1) for k in range(48)])
    for name in ("my_preferences", "corpus"):
        write_corpus(folder / name, train=64, test=12)
    (folder / "checks.py").write_text(CHECKER)
    (folder / "my_claims.py").write_text(CLAIMS)
    (folder / "rlhf.yaml").write_text(yaml.safe_dump(PIPELINE))
    (folder / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    for kind, settings in KINDS.items():
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(settings | GIVEN))
    save_models(folder / "models", pairs, max_length=512)


def small(words: tuple[str, ...]) -> list[str]:
    """The command as it is carried out."""
    command, *rest = (SMALL.get(word, word) for word in words if word != "--bf16")
    rest = ["train.jsonl" if word.startswith("hf://") else word for word in rest]
    for place, word in enumerate(rest[:-1]):
        if word in OUTPUTS and not rest[place + 1].endswith(".html"):
            rest[place + 1] = f"out/{next(COUNT)}"
        if word == "--jobs":
            rest[place + 1] = "1"
        if word == "--config" and command in ("train", "sweep"):
            rest[place + 1] = f"{rest[0]}.yaml" if command == "train" else "small.yaml"
    rest = [word.replace("math.jsonl", "problems.csv") for word in rest]
    if "--address" in rest:  # of a cluster; tests/test_clusters.py has some
        place = rest.index("--address")
        del rest[place : place + 2]
    if command == "pipeline":
        rest.append("--dry-run")
    if command == "simulate":
        rest += SIMULATED[rest[0]]
    if command == "verify" and (not rest or rest[0].startswith("-")) and "--show" not in rest:
        rest.insert(0, "kl-penalty-gap")
    return [command, *rest]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with all files, and the runs that the pages speak of, trained by commands of theirs."""
    folder = tmp_path_factory.mktemp("pages")
    write_files(folder)
    start = ["--model", "models/start"]
    made = {"sft": start, "reward": [], "dpo": start, "policy": [*start, "--reward_model", "models/rm"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, extra in made.items():
            words = ["train", kind, "--config", f"{kind}.yaml", "--train_file", "train.jsonl", *extra, "--output_dir"]
            assert robust_rlhf.main([*words, f"runs/{kind}"]) == 0
        assert robust_rlhf.main(["sweep", "--config", "small.yaml", "--output", "runs/sweep"]) == 0
    for name in ("rm", "mine", "plain", "robust", "first", "one", "two"):
        shutil.copytree(folder / "runs" / "reward", folder / "runs" / name)
    shutil.copytree(folder / "runs" / "policy", folder / "runs" / "sums")
    for name in ("builtin", "real"):
        shutil.copytree(folder / "runs" / "sweep", folder / "runs" / "study" / name)
    return folder


HERE = sorted({words for _, words in WHOLE if not any(words[: len(start)] == start for start in NOT_HERE)})


@pytest.mark.exhaustive
@pytest.mark.parametrize("words", HERE, ids=" ".join)
def test_a_command_of_a_page_is_carried_out(words, world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(world)
    fine = (0, 1) if words[0] in ("doctor", "data") else (0,)  # 1: a finding
    with (world / "test.jsonl").open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        assert robust_rlhf.main(small(words)) in fine


@pytest.mark.parametrize("start", NOT_HERE, ids=" ".join)
def test_what_is_not_carried_out_here_stands_in_a_page_and_is_elsewhere(start):
    assert any(words[: len(start)] == start for _, words in WHOLE)
    text = (Path(__file__).parents[2] / NOT_HERE[start].split(",")[0].split(":")[0]).read_text()
    assert start[-1] in text
