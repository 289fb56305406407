"""A resumed run is the run that was started, or stops with one sentence that names what it reads differently."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from forked import finished, start_ranks
from safetensors.torch import load_file, save_file

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models import contents as reading
from llm.models.contents import content_of, contents, digest
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.policy.config import PolicyConfig
from llm.run import resumption
from llm.run.resumption import ENVIRONMENT, FORCED, OPTIONAL, SESSIONS, differences
from llm.training.config import DPOConfig, RewardConfig, SFTConfig
from llm.training.identity import identity
from llm.training.settings import parse_train
from robust_rlhf import main

peft = pytest.importorskip("peft")

KINDS = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig, "policy": PolicyConfig}


@pytest.fixture(scope="module")
def built(once):
    """Data, and folders of models: policies, reward models, and an adapter of each kind on a base of its own."""

    def build(folder):
        pairs = generate(24, seed=3)
        write_pairs(pairs, folder / "train.jsonl")
        torch.manual_seed(0)
        policy, words = tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=64)
        reward, others = tiny_reward_model((pair.chosen for pair in pairs), max_length=64)
        for name in ("start", "reference", "policy-base"):
            policy.save_pretrained(folder / name), words.save_pretrained(folder / name)
        for name in ("judge", "gold", "reward-base"):
            reward.save_pretrained(folder / name), others.save_pretrained(folder / name)
        for name, task in (("policy", "CAUSAL_LM"), ("reward", "SEQ_CLS")):
            save_adapter(folder, name, task)

    return once("resuming", build)


def save_adapter(folder, name, task):
    """An adapter alone, whose settings name its base beside it."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    base = kind.from_pretrained(folder / f"{name}-base")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", exclude_modules=["head.dense", "lm_head"], task_type=task)
    with warnings.catch_warnings():  # it asks for an attribute that transformers has renamed
        warnings.simplefilter("ignore")
        peft.get_peft_model(base, lora).save_pretrained(folder / f"{name}-adapter")
    settings = folder / f"{name}-adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": f"{name}-base"}))


@pytest.fixture
def place(built, tmp_path):
    """The same, to be changed."""
    shutil.copytree(built, tmp_path / "in")
    return tmp_path / "in"


def command(kind, place, output, **more):
    told = {
        "train_file": place / "train.jsonl", "output_dir": output, "max_steps": 1, "max_length": 64, "use_cpu": "true",
        "disable_tqdm": "true", "per_device_train_batch_size": 8, **more,
    }  # fmt: skip
    if kind == "policy":
        told |= {"prompts_per_step": 2, "samples": 2, "max_new_tokens": 4}
    return ["train", kind, *(text for name, value in told.items() for text in (f"--{name}", str(value)))]


READ = {  # folders by role, and settings
    "sft": {"model": "start"},
    "reward": {"model": "reward-adapter", "ambiguity": "tv:0.3"},
    "dpo": {"model": "start", "reference_model": "reference", "reference": "model"},
    "dpo-lora": {"model": "policy-base", "lora_rank": 2, "reference": "adapter"},
    "policy": {"model": "start", "reward_model": "judge", "gold": "gold", "reference_model": "policy-adapter"},
}
TOUCHED = [  # kind of run, what changes in which folder, what the sentence names
    ("sft", "start/model.safetensors", "content of model"),
    ("reward", "reward-base/model.safetensors", "content of base of model"),
    ("dpo", "reference/model.safetensors", "content of reference_model"),
    ("dpo-lora", "policy-base/model.safetensors", "content of model"),
    ("policy", "judge/model.safetensors", "content of reward_model"),
    pytest.param(
        "reward", "reward-adapter/adapter_model.safetensors", "content of model", marks=pytest.mark.exhaustive
    ),
    pytest.param("dpo", "start/model.safetensors", "content of model", marks=pytest.mark.exhaustive),
    pytest.param("policy", "start/model.safetensors", "content of model", marks=pytest.mark.exhaustive),
    pytest.param("policy", "gold/model.safetensors", "content of gold", marks=pytest.mark.exhaustive),
    pytest.param(
        "policy", "policy-base/model.safetensors", "content of base of reference_model", marks=pytest.mark.exhaustive
    ),
    pytest.param("policy", "gold/tokenizer.json", "content of gold", marks=pytest.mark.exhaustive),
]


def read_by(kind, place):
    return {name: place / value if (place / str(value)).exists() else value for name, value in READ[kind].items()}


def touch(file):
    """Other weights of the same shapes, or another line at the end."""
    if file.suffix != ".safetensors":
        file.write_text(file.read_text() + "\n")
        return
    parts = load_file(file)
    name = next(name for name, part in parts.items() if part.ndim == 2)
    parts[name][0, 0] += 1e-3
    save_file(parts, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("kind", "touched", "named"), TOUCHED)
def test_other_content_at_the_same_path_stops_a_resumed_run(kind, touched, named, place, tmp_path, capsys):
    run = tmp_path / "run"
    argv = command(kind.partition("-")[0], place, run, **read_by(kind, place))
    assert main(argv) == 0
    assert main([*argv, "--resume"]) == 0  # nothing has changed yet
    touch(place / touched)
    before = (run / "settings.json").read_bytes()
    capsys.readouterr()
    assert main([*argv, "--resume"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("robust-rlhf: ")]
    assert len(said) == 1
    assert f"was started with another {named}: " in said[0]
    assert (run / "settings.json").read_bytes() == before
    assert main([*argv, "--resume", "--force"]) == 0
    card = (run / "model" / "README.md").read_text()
    assert f"changed on the way (--force)** | {named}: " in card
    assert main([*argv, "--resume"]) == 0  # it is the run with these from now on
    assert named in (run / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("sft", {"model"}),
        ("reward", {"model", "base of model"}),
        ("dpo", {"model", "reference_model"}),
        ("policy", {"model", "reward_model", "gold", "reference_model", "base of reference_model"}),
    ],
)
def test_the_content_of_every_model_that_a_run_names_is_noted(kind, read, place):
    config, arguments = parse_train(KINDS[kind], command(kind, place, place / "run", **read_by(kind, place))[2:])
    found = identity(config, arguments, {"train": {"sha256": "x"}})
    told = {name.removeprefix("content of "): value for name, value in found.items() if name.startswith("content of ")}
    assert told.keys() == read
    for role in read:
        folder = READ[kind][role.removeprefix("base of ")]
        assert told[role] == digest(place / (folder.replace("adapter", "base") if role.startswith("base") else folder))


def test_the_card_of_a_model_is_no_part_of_it_and_its_words_and_code_are(place):
    folder = place / "start"
    found = {digest(folder)}
    (folder / "README.md").write_text("judged")
    assert {digest(folder)} == found
    for name in ("vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "modeling_mine.py"):
        (folder / name).write_text("other")
        found.add(digest(folder))
    assert len(found) == 6


def test_a_run_folder_and_the_file_of_a_function_count_by_what_is_used(place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place / "start", run / "model")
    (run / "settings.json").write_text("{}")
    before = content_of(str(run))
    (run / "settings.json").write_text('{"other": 1}')
    assert content_of(str(run)) == before == digest(place / "start")
    touch(run / "model" / "model.safetensors")
    assert content_of(str(run)) != before
    code = tmp_path / "judge.py"
    code.write_text("def score(prompt, answer): return 1.0")
    before = content_of(f"{code}:score")
    assert content_of(str(code)) == before
    code.write_text("def score(prompt, answer): return 2.0")
    assert content_of(f"{code}:score") != before


def test_each_place_is_read_once_and_large_ones_are_named(place, monkeypatch, caplog):
    read = []
    monkeypatch.setattr(reading, "digest", lambda path: read.append(path.name) or digest(path))
    names = {
        "model": str(place / "start"),
        "reference_model": str(place / "start"),
        "gold": str(place / "reward-adapter"),
    }
    with caplog.at_level(logging.INFO, logger="llm.models.contents"):
        found = contents({**names, "reward_model": None})
        assert not caplog.records
        monkeypatch.setattr(reading, "_LARGE", 0)
        contents(names)
    assert list(found) == ["model", "reference_model", "gold", "base of gold"]
    assert sorted(read[:3]) == ["reward-adapter", "reward-base", "start"]
    assert len(read) == 6
    (said,) = [record.getMessage() for record in caplog.records]
    assert "GB once for the hashes of model, reference_model, gold, base of gold" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_hashes_nothing(kind, place, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "digest", lambda path: pytest.fail(f"{path} is hashed"))
    assert main([*command(kind, place, tmp_path / "run", **read_by(kind, place)), "--dry_run"]) == 0


# -- names of the hub ------------------------------------------------------------------------------


def commit_to(hub, source, commit, *, main_is):
    snapshot = hub / "models--me--start" / "snapshots" / commit
    shutil.copytree(source, snapshot)
    refs = hub / "models--me--start" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(main_is)


def test_a_name_of_the_hub_counts_by_its_commit(place, tmp_path, monkeypatch, capsys):
    hub, (one, other) = tmp_path / "hub", (40 * "a", 40 * "b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    commit_to(hub, place / "start", one, main_is=one)
    argv = command("sft", place, tmp_path / "run", model="me/start")
    assert main(argv) == 0
    notes = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert notes["content of model"] == f"commit {one}"
    touch(place / "start" / "model.safetensors")
    commit_to(hub, place / "start", other, main_is=other)
    assert main([*argv, "--resume"]) == 2
    assert "another content of model: " in capsys.readouterr().err
    assert contents({"model": "nobody/nothing"}) == {"model": "unknown"}


# -- older and other versions ----------------------------------------------------------------------


def finished_run(place, tmp_path):
    run = tmp_path / "run"
    argv = command("sft", place, run, model=place / "start", weight_decay=0.1)
    assert main(argv) == 0
    return run, argv


def test_other_versions_are_named_and_not_refused(place, tmp_path, caplog):
    run, argv = finished_run(place, tmp_path)
    notes = json.loads((run / "settings.json").read_text())
    assert notes[ENVIRONMENT]["torch"] == version("torch")
    notes[ENVIRONMENT] |= {"torch": "2.1.0", "accelerate": "0.9"}
    (run / "settings.json").write_text(json.dumps(notes))
    assert main([*argv, "--resume"]) == 0
    said = caplog.text
    change = f"started with torch 2.1.0, resumed with {version('torch')}"
    assert change in said
    assert "started with accelerate 0.9" in said
    assert change in json.loads((run / "run.json").read_text())["other_versions"]
    assert "| other versions | started with accelerate 0.9, resumed with" in (run / "model" / "README.md").read_text()
    assert main([*argv, "--resume"]) == 0
    again = json.loads((run / "settings.json").read_text())
    assert again[ENVIRONMENT]["torch"] == "2.1.0"  # what it started with
    assert len(again[SESSIONS]) == 2


# What the first version noted, beside its settings and hashes of the data.
FIRST = [
    "seed", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "world_size", "lr_scheduler_type", "weight_decay", "max_grad_norm", "bf16", "fp16",
    "warmup_steps", "lr_scheduler_kwargs", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
    "data_seed", "dataloader_drop_last",
]  # fmt: skip


def test_a_folder_of_an_older_version_goes_on_and_what_it_lacks_is_said_once(place, tmp_path, capsys, caplog):
    run, argv = finished_run(place, tmp_path)
    notes = json.loads((run / "settings.json").read_text())
    ours = SFTConfig.__dataclass_fields__
    old = {name: value for name, value in notes.items() if name in ours or name in FIRST or "sha256" in name}
    (run / "settings.json").write_text(json.dumps({**old, FORCED: []}))
    assert main([*argv, "--resume", "--weight_decay", "0.2"]) == 2  # what it did note still counts
    assert "another weight_decay: " in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0
    assert caplog.text.count("older version, which did not note content of model and ") == 1
    for file in ("run.json", "model/README.md"):  # who has no log of that session learns it there
        assert (run / file).read_text().count("started by an older version, which did not note content of model") == 1
    caplog.clear()
    assert main([*argv, "--resume"]) == 0
    assert "older version" not in caplog.text
    touch(place / "start" / "model.safetensors")
    assert main([*argv, "--resume"]) == 2


def notes(optional=(), **entries):
    return {**entries, OPTIONAL: list(optional)}


@pytest.mark.parametrize(
    ("found", "wanted", "changed"),
    [
        (notes(a=1), notes(a=2), ["a"]),
        (notes(a=1), notes(), ["a"]),
        (notes(), notes(a=1), ["a"]),
        (notes(["a"], a=1), notes(), []),
        (notes(), notes(["a"], a=1), []),
        (notes(["a"], a=1), notes(["a"], a=2), ["a"]),  # the library's default is another now
        (notes(a=None), notes(a=False), []),
        (notes(a=[]), notes(a=None), []),
        (notes(a=0), notes(a=None), ["a"]),
        (notes(a=0), notes(a=1), ["a"]),
        ({"a": 1}, notes(a=1, b=2), []),
        ({"a": 1, "b": 3}, notes(a=1), []),
        ({"a": 1}, notes(a=1, **{"sha256 of the eval file": "x"}), ["sha256 of the eval file"]),
    ],
)
def test_notes_are_compared_both_ways(found, wanted, changed):
    assert differences(found, wanted).changed == changed
    if OPTIONAL in found:
        assert differences(wanted, found).changed == changed


# -- demos, processes ------------------------------------------------------------------------------


def test_a_demo_is_not_resumed_with_other_weights(place, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(place / "train.jsonl", data / "train.jsonl")
    shutil.copy(place / "train.jsonl", data / "test.jsonl")
    argv = ["demo", "--data", str(data), "--model", str(place / "judge"), "--ambiguity", "erm", "--output",
            str(tmp_path / "demo"), "--set", "max_steps=1", "--set", "use_cpu=true"]  # fmt: skip
    assert main(argv) == 0
    touch(place / "judge" / "model.safetensors")
    assert main([*argv, "--resume"]) == 2
    assert "another content of model: " in capsys.readouterr().err


@pytest.mark.parametrize("damaged", ["margins.npz", "run.json"])
def test_a_demo_judges_a_run_again_that_is_damaged(damaged, place, tmp_path, caplog):
    data, demo = tmp_path / "data", tmp_path / "demo"
    data.mkdir()
    shutil.copy(place / "train.jsonl", data / "train.jsonl")
    shutil.copy(place / "train.jsonl", data / "test.jsonl")
    argv = ["demo", "--data", str(data), "--model", str(place / "judge"), "--ambiguity", "erm", "--output", str(demo),
            "--set", "max_steps=1", "--set", "use_cpu=true"]  # fmt: skip
    assert main(argv) == 0
    file, before = demo / "runs" / "erm" / "seed-0" / damaged, read_margins(demo)
    file.write_bytes(file.read_bytes()[:-9])
    assert main([*argv, "--resume"]) == 0
    assert "is exported and judged again" in caplog.text
    assert json.loads((file.parent / "run.json").read_text())["steps"] == 1
    assert np.array_equal(read_margins(demo), before)


def read_margins(demo):
    with np.load(demo / "runs" / "erm" / "seed-0" / "margins.npz") as stored:
        return stored["test"]


def counted(log, argv):
    """Train; every digest leaves a line in ``log``."""
    import os

    def noting(path):
        with Path(log).open("a") as stream:
            stream.write(f"{os.environ['RANK']} {path.name}\n")
        return digest(path)

    reading.digest = noting
    return main(argv)


def test_one_process_hashes_for_all(place, tmp_path):
    read = {"model": place / "start", "reference_model": place / "reference"}
    argv = command("dpo", place, tmp_path / "run", dataloader_drop_last="true", per_device_train_batch_size=4, **read)
    finished(start_ranks(counted, str(tmp_path / "log"), argv))
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "0", "reference", "start"]
    assert resumption.other_versions(tmp_path / "run" / "settings.json") == []
