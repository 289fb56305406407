"""Compiled models: the losses of the same run without, in one pass and in two; what cannot be compiled is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch._dynamo.utils
from loaded_models import quiet, starts, train
from transformers import AutoConfig, AutoModel

from llm.models.adapters import Adapter, with_adapter
from llm.models.loading import load_policy
from llm.models.logprobs import inner_model

pytestmark = [*quiet, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


def compiled(backend):
    return ["--torch_compile", "true", "--torch_compile_backend", backend]


def numbers(folder):
    rows = json.loads((folder / "run" / "run.json").read_text())["history"]
    return [row[name] for row in rows for name in ("mean_loss", "robust_loss", "grad_norm") if name in row]


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)  # inductor's C++ took six minutes on busy cores with nothing in its cache
@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize(("kind", "passes"), [("dpo", 1), ("dpo", 2), ("reward", 1), ("reward", 2)])
def test_a_compiled_run_has_the_same_losses(start, tmp_path, kind, passes, backend):
    more = ["--ambiguity", "tv:0.2", "--per_device_train_batch_size", str(8 // passes), "--logging_steps", "1"]
    more += ["--gradient_accumulation_steps", str(passes)]
    more += ["--lora_rank", "2", "--lora_targets", "q_proj", "v_proj"] if kind == "dpo" else []
    assert train(kind, tmp_path / "plain", start("llama"), *more) == 0
    torch._dynamo.utils.counters.clear()
    assert train(kind, tmp_path / "compiled", start("llama"), *more, *compiled(backend)) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert len(numbers(tmp_path / "plain")) >= 6
    np.testing.assert_allclose(numbers(tmp_path / "compiled"), numbers(tmp_path / "plain"), rtol=1e-3)


@pytest.mark.exhaustive(turns=8)
def test_a_run_is_compiled_whatever_was_compiled_before(start, tmp_path):
    """Of models that share their code torch keeps so many versions, and runs the next ones as they are."""
    with torch._dynamo.config.patch(recompile_limit=2):
        for name in ("llama", "wider", "llama"):
            model = start("llama") if name == "llama" else wider(tmp_path / "start", start("llama"))
            torch._dynamo.utils.counters.clear()
            assert train("reward", tmp_path / name, model, "--overwrite", "true", *compiled("aot_eager")) == 0
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def wider(folder, source):
    """A model of the same code and another shape."""
    shutil.copytree(source, folder)
    config = AutoConfig.from_pretrained(source)
    config.intermediate_size += 8
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.exhaustive(turns=8)
def test_the_logits_of_a_part_are_asked_of_a_compiled_model_too(start):
    model, _ = load_policy(str(start("llama")))
    assert inner_model(torch.compile(model)) is model
    assert inner_model(torch.compile(with_adapter(model, Adapter(2), task="CAUSAL_LM"))) is model


def test_what_is_not_compiled_says_why(start, tmp_path, capsys):
    judge = ["--reward_model", "regex:a", "--prompts_per_step", "4", "--max_new_tokens", "4"]
    for kind, more, said in (
        ("policy", judge, "torch_compile does nothing in a policy run: generation and training run as the model is"),
        ("dpo", ["--loss", "wdpo:1"], "wdpo differentiates twice, and compiled models only once"),
    ):
        assert train(kind, tmp_path / kind, start("llama"), *more, *compiled("aot_eager")) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
