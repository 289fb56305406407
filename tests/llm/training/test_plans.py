"""What a plan says of memory and checkpoints, against what runs write; and of a start on other processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import save_models
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from whole_runs import files_of, train_command

from llm.data.pairs import read_pairs
from llm.kinds.registry import config_of
from llm.models.adapters import Adapter, with_adapter
from llm.models.memory import ModelSizes, checkpoint_bytes, held, sizes_of
from llm.run.folder import SETTINGS, check_resumed
from llm.run.resumption import compared
from llm.training.identity import settings_of
from llm.training.settings import parse_train
from robust_rlhf import main

GIB = 2.0**30
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def files(once):
    return files_of(once)


@pytest.mark.parametrize("rank", [0, 16])
def test_a_checkpoint_is_as_large_as_the_plan_says(files, tmp_path, capsys, rank):
    argv = train_command("reward", files / "train.jsonl", tmp_path / "run", lora_rank=rank, max_steps=1)
    assert main([*argv, "--dry_run"]) == 0
    planned = float(re.search(r"a checkpoint +(\S+) GiB", capsys.readouterr().out)[1])
    assert main(argv) == 0
    folder = tmp_path / "run" / "checkpoint-1"
    written = sum(file.stat().st_size for file in [*folder.glob("*.safetensors"), folder / "optimizer.pt"])
    assert planned == pytest.approx(written / GIB, rel=0.05)


def test_zero_shares_the_sixteen_bytes_of_a_parameter_that_it_is_published_with():
    whole = ModelSizes(number=1000, trained=1000, weights=4000, moving=4000)
    for ranks in (1, 4, 64):
        found = held(whole, ranks, mixed=True)
        assert sum(found["zero3"]) == pytest.approx(16_000 / ranks)
        assert sum(found["zero2"]) == pytest.approx(2000 + 14_000 / ranks)
        assert sum(found["fsdp2"]) == pytest.approx(16_000 / ranks)


def test_frozen_weights_have_no_gradients_and_are_shared_where_all_weights_are():
    """Weights in bfloat16 below an adapter in float32."""
    found = held(ModelSizes(number=1010, trained=10, weights=2040, moving=40), 4, mixed=True)
    assert found["single"] == (2040, 40, 80)
    assert found["fsdp2"] == (510, 10, 20)
    assert found["zero2"] == (2020, 5, 30)


def test_the_page_plans_eight_billion_parameters_by_the_formulas():
    """Every row of its table, of a model that is laid out without weights."""
    pytest.importorskip("peft")
    shape = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    with torch.device("meta"):
        whole, half = (LlamaForSequenceClassification(shape).to(dtype) for dtype in (torch.float32, torch.bfloat16))
    halves = sizes_of(half)
    adapted = sizes_of(with_adapter(half, Adapter(32), task="SEQ_CLS"))
    alls, page = sizes_of(whole), (ROOT / "docs" / "scaling.md").read_text()
    for name, sizes, frozen_too in (("LoRA", adapted, False), ("all weights", alls, True)):
        rows = re.findall(rf"^\| {name}.*(?:\n\| the same.*)*", page, re.MULTILINE)[0].splitlines()
        for row in rows:
            kind = re.search(r"`(ddp|zero2|fsdp2|zero3)`", row)[1]
            parts = held(sizes, 8, mixed=True)[kind]
            assert row.endswith("| ".join(["", *(f"{part / GIB:.1f} " for part in (*parts, sum(parts)))]) + "|"), row
        bytes_of = checkpoint_bytes(sizes, frozen_too=frozen_too) / GIB
        assert f"| {bytes_of:.0f} GiB |" in page or f"| {bytes_of:.1f} GiB at rank 32 |" in page
    small, spread = (checkpoint_bytes(halves, frozen_too=True, spread=spread) for spread in (False, True))
    assert spread == 2 * small == checkpoint_bytes(alls, frozen_too=True)


@pytest.fixture(scope="module")
def outlined(files, tmp_path_factory):
    """Folders with configuration and tokenizer alone, and the same with weights below ``whole``."""
    folder = tmp_path_factory.mktemp("outlined")
    save_models(folder / "whole", read_pairs(files / "train.jsonl").pairs, max_length=64)
    shutil.copytree(folder / "whole", folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("reward", "rm", {}),
        ("reward", "rm", {"lora_rank": 4}),
        ("sft", "start", {"padding_free": True}),
        ("dpo", "start", {"reference": "model"}),
    ],
)
def test_a_plan_needs_no_weights(files, outlined, tmp_path, capsys, kind, name, more):
    def plan(model):
        told = {"model": model, **more}
        assert main([*train_command(kind, files / "train.jsonl", tmp_path / "run", **told), "--dry_run"]) == 0
        return capsys.readouterr().out

    assert plan(outlined / name) == plan(outlined / "whole" / name)
    argv = train_command(kind, files / "train.jsonl", tmp_path / "run", model=outlined / name, **more)
    assert main(argv) == 2
    assert "cannot load a model" in capsys.readouterr().err


@pytest.mark.skipif(torch.accelerator.is_available(), reason="what is asked of a GPU is there")
@pytest.mark.parametrize("flag", ["bf16", "tf32"])
def test_what_only_a_gpu_has_is_planned_without_one(files, tmp_path, capsys, caplog, flag):
    argv = train_command("reward", files / "train.jsonl", tmp_path / "run", **{"use_cpu": False, flag: True})
    assert main([*argv, "--dry_run"]) == 0
    assert f"{flag} takes a GPU, and there is none here" in caplog.text
    assert main(argv) == 2
    assert flag in capsys.readouterr().err


PEAK = """
import re, sys
from pathlib import Path
from robust_rlhf import main

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

out, small, large, *argv = sys.argv[1:]
assert main([*argv, "--model", small, "--output_dir", f"{out}/small"]) == 0  # all is imported, all has run once
before = peak()
assert main([*argv, "--model", large, "--output_dir", f"{out}/large"]) == 0
print("grew by", peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of this process alone")
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("dpo", {"reference": "model"}),
        pytest.param("sft", {"dtype": "bfloat16", "final": "average"}, marks=pytest.mark.exhaustive),
        pytest.param("dpo", {"lora_rank": 2, "bf16": True}, marks=pytest.mark.exhaustive),
        pytest.param("sft", {"per_device_train_batch_size": 1, "validation_share": 0.5}, marks=pytest.mark.exhaustive),
    ],
)
def test_a_large_vocabulary_takes_what_the_plan_says(files, outlined, tmp_path, capsys, kind, more):
    """Two steps: what was planned and what was measured differ by less than a factor of 1.5."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "pad_token_id": 0,
    }
    large = shutil.copytree(outlined / "start", tmp_path / "wide")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=2**17, tie_word_embeddings=True, **shape)).save_pretrained(large)
    told = {"max_steps": 2, "save_strategy": "no", "plain_share": 0, "eval_steps": 1, "eval_strategy": "steps"} | more
    told |= {} if "validation_share" in more else {"eval_strategy": "no"}
    argv = train_command(kind, files / "train.jsonl", tmp_path / "plan", **told)
    assert main([*argv, "--model", str(large), "--dry_run"]) == 0
    plan = capsys.readouterr().out
    row = next(line.split() for line in plan.splitlines() if line.split()[:1] == ["single"])
    assert (len(row) == 8) == bool({"reference", "final"} & more.keys())  # a column of other models
    together = float(row[-3])
    activations, logits, *judged = map(float, re.findall(r"([\d.e-]+) GiB (?:for|in|where)", plan))
    command = [sys.executable, "-c", PEAK, tmp_path, outlined / "whole" / "start", large, *argv]
    unkept = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is free is given back
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=unkept)
    assert done.returncode == 0, done.stderr
    grew = int(re.search(r"grew by (\d+)", done.stdout)[1]) / GIB
    planned = together + activations + max(logits, *judged, 0)
    assert grew / 1.5 < planned < 1.5 * grew, (grew, planned)


def notes(world, **more):
    return {"world_size": world, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, **more}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (notes(4), "would share 32: --gradient_accumulation_steps 4 or --per_device_train_batch_size 8 keeps the 64"),
        (notes(16), "would share 128: --gradient_accumulation_steps 1 or --per_device_train_batch_size 2 keeps the 64"),
        (notes(3), "would share 24: no number on each of them keeps the 64"),
        (notes(4, gradient_accumulation_steps=4), "would share as many"),
    ],
)
def test_a_start_on_other_processes_says_what_keeps_the_effective_batch(now, said, caplog):
    begin = f"8 process(es) shared 64 examples a step, {now['world_size']} {said}"
    with pytest.raises(ValueError, match="another ") as refused:
        compared(Path("run"), notes(8), now, force=False)
    assert begin in str(refused.value)
    compared(Path("run"), notes(8), now, force=True)
    assert f"world_size: 8 -> {now['world_size']}" in caplog.text
    assert begin in caplog.text


def test_so_does_the_refusal_before_anything_is_read(tmp_path):
    (tmp_path / SETTINGS).write_text(json.dumps(notes(2) | {"adversary_sees": "losses", "ambiguity": "tv:0.2"}))
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(ValueError, match=r"shared 16 examples a step, 1 would share 8: .*_batch_size 8 keeps the 16"):
        check_resumed(tmp_path, notes(1))


def test_a_plan_of_a_resumed_run_says_and_refuses_what_the_run_would(files, tmp_path, capsys, caplog):
    argv = train_command("reward", files / "train.jsonl", tmp_path / "run", "--resume", "--dry_run")
    arguments = parse_train(config_of("reward"), argv[2:])
    (tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    started = {**settings_of(*arguments), "world_size": 2, "tf32": True}  # on a machine that has what this one has not
    (tmp_path / "run" / SETTINGS).write_text(json.dumps(started))
    sentence = "; 2 process(es) shared"
    assert main(argv) == 2
    assert "another world_size: " in (said := capsys.readouterr().err)
    assert sentence in said
    assert main([*argv, "--force"]) == 0
    assert "goes on although it changed: world_size: 2 -> 1" in caplog.text
    assert sentence in caplog.text
    (tmp_path / "run" / SETTINGS).write_text(json.dumps(started | {"world_size": 1}))
    caplog.clear()
    assert main(argv) == 0
    assert "changed" not in caplog.text


def test_of_a_policy_it_is_prompts_that_are_shared():
    now = {"world_size": 2, "prompts_per_step": 8}
    with pytest.raises(ValueError, match="shared 8 prompts a step, 2 would share 16: --prompts_per_step 4 keeps"):
        compared(Path("run"), now | {"world_size": 1}, now, force=False)
