"""Nothing that is loaded runs code: models, adapters, the code they name and their chat templates."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from checkpoint_runs import place_of
from payloads import ALL, Payload, adapter_in, evaluated, mark_in, planted, readers
from transformers import modeling_utils
from transformers.integrations import hub_kernels

from robust_rlhf import main


@pytest.fixture
def mark(tmp_path, monkeypatch):
    return mark_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.parametrize("every", [False, ALL])
def test_model_folders(every, place, tmp_path, mark):
    model = shutil.copytree(place.inputs / "rm", tmp_path / "model")
    assert planted(model, mark, lambda: evaluated(place, model), every=every) >= 1


def test_models_without_safetensors(place, tmp_path, mark):
    reference = ["--reference", str(place.inputs / "start")]
    for model, more in (
        (shutil.copytree(place.inputs / "rm", tmp_path / "rm"), []),
        (adapter_in(place, tmp_path / "adapter"), reference),
    ):
        (weights,) = model.glob("*model.safetensors")
        weights.unlink()
        for stem in ("pytorch_model", "adapter_model"):
            torch.save(Payload(mark), model / f"{stem}.bin")
        assert evaluated(place, model, *more) == 2
        assert not mark.exists()


@pytest.mark.parametrize("every", [False, ALL])
def test_adapter_folders(every, place, tmp_path, mark):
    adapter = adapter_in(place, tmp_path / "adapter")
    reference = ["--reference", str(place.inputs / "start")]
    assert evaluated(place, adapter, *reference) == 0
    assert planted(adapter, mark, lambda: evaluated(place, adapter, *reference), every=every) >= 1


def named(place, tmp_path, mark, **settings):
    """An adapter whose settings name a module that would leave the mark; what is said of it."""
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    adapter = adapter_in(place, tmp_path / f"adapter-{'-'.join(settings)}")
    found = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(found | settings))
    return adapter


OTHER_KINDS = {
    "PROMPT_TUNING": {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "num_virtual_tokens": 2},
    "MULTITASK_PROMPT_TUNING": {"prompt_tuning_init": "AVERAGE_SOURCE_TASKS", "num_virtual_tokens": 2, "num_tasks": 1},
    "ADAPTION_PROMPT": {"adapter_len": 2, "adapter_layers": 1},
    "NONE_OF_THEM": {},
}


@pytest.mark.parametrize("kind", [*OTHER_KINDS, "LORA"])
def test_modules_and_files_that_an_adapter_names(kind, place, tmp_path, mark, monkeypatch, capsys):
    """peft imports and unpickles what its settings name, or did in some version: they are read before it."""
    monkeypatch.syspath_prepend(tmp_path)
    reference = ["--reference", str(place.inputs / "start")]
    stranger = shutil.copytree(place.inputs / "start", tmp_path / "stranger")
    torch.save(Payload(mark), tmp_path / "prompts.bin")
    code = {"megatron_config": {"x": 1}, "megatron_core": "evil", "auto_mapping": {"parent_library": "evil"}}
    files = {"prompt_tuning_init_state_dict_path": str(tmp_path / "prompts.bin"), "tokenizer_name_or_path":
             str(stranger), "tokenizer_kwargs": {"trust_remote_code": True}}  # fmt: skip
    told = code if kind == "LORA" else {"peft_type": kind, "inference_mode": False, **OTHER_KINDS[kind], **files}
    adapter = named(place, tmp_path, mark, **told)
    monkeypatch.setattr("peft.PeftModel.from_pretrained", lambda *_: pytest.fail("peft was asked"))
    assert evaluated(place, adapter, *reference) == 2
    said = "names code to import" if kind == "LORA" else "cannot be merged into weights"
    assert said in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    "key", ["attn_implementation", pytest.param("_attn_implementation", marks=pytest.mark.exhaustive)]
)
def test_code_of_the_hub_that_a_configuration_names(key, place, tmp_path, capsys, monkeypatch):
    """``kernels``, where it is installed, fetches and runs what a configuration calls its attention."""
    fetched = []
    for module in (hub_kernels, modeling_utils):
        monkeypatch.setattr(module, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda name, **_: fetched.append(name) or 1 / 0)
    for name in ("rm", "start"):
        model = shutil.copytree(place.inputs / name, tmp_path / name)
        settings = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(settings | {key: "kernels-community/attention"}))
        for argv in readers(place, tmp_path, model):
            assert main(argv) in (0, 2), argv
            assert not fetched, argv
        more = ["--reference", "none"] if name == "start" else []
        capsys.readouterr()
        assert evaluated(place, model, *more) == 2
        told = capsys.readouterr().err
        assert "kernels-community/attention, which is not installed and would be code of the hub" in told or (
            "asks for code of the hub, kernels-community/attention" in told
        )
        assert evaluated(place, model, *more, "--trust-remote-code") == 2
        assert fetched.pop() == "kernels-community/attention"
        # What is not installed is fetched, too.
        (model / "config.json").write_text(json.dumps(settings | {key: "flash_attention_2"}))
        assert evaluated(place, model, *more) == 2
        assert not fetched


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("known", [True, False], ids=["known type", "unknown type"])
@pytest.mark.parametrize("name", ["rm", "start"])
def test_modules_beside_a_model(name, known, place, tmp_path, mark):
    """Code that a configuration names is read only with --trust-remote-code, whatever the folder's records say."""
    run = tmp_path / "stranger"
    model = shutil.copytree(place.inputs / name, run / "model")
    (model / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoTokenizer")
    for file in ("config.json", "tokenizer_config.json"):
        settings = json.loads((model / file).read_text())
        settings["auto_map"] = dict.fromkeys(classes, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        settings["trust_remote_code"] = True
        if not known:
            settings |= {"model_type": "evil", "tokenizer_class": "Evil"}
        (model / file).write_text(json.dumps(settings))
    (run / "run.json").write_text(
        json.dumps({"kind": "Reward model", "config": {"model": str(model), "trust_remote_code": True}})
    )
    for argv in readers(place, tmp_path, model):
        assert main(argv) in (0, 2), argv
        assert not mark.exists(), argv


ESCAPES = (
    "{{ cycler.__init__.__globals__['os'].system(COMMAND) }}",
    "{{ raise_exception.__globals__['__builtins__']['open'](MARK, 'w') }}",
    "{% for c in ''.__class__.__mro__[-1].__subclasses__() %}{% if 'Popen' in c.__name__ %}"
    "{{ c(['touch', MARK]).wait() }}{% endif %}{% endfor %}",
    "{{ messages.append.__self__.__class__.__base__.__subclasses__() }}",
)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("escape", ESCAPES)
def test_chat_templates(escape, place, tmp_path, mark):
    for name in ("rm", "start"):
        model = shutil.copytree(place.inputs / name, tmp_path / name)
        text = escape.replace("COMMAND", repr(f"touch {mark}")).replace("MARK", repr(str(mark)))
        (model / "chat_template.jinja").write_text(text + "{{ messages }}")
        for argv in readers(place, tmp_path, model):
            assert main(argv) in (0, 2), argv
            assert not mark.exists(), argv
