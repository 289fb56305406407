"""Nothing that is loaded runs code: a payload in every file of every kind of folder, under the commands that read."""

from __future__ import annotations

import enum
import json
import os
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from checkpoint_runs import KINDS, command, earlier, halted, place_of
from transformers import modeling_utils
from transformers.integrations import hub_kernels

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.run.folder import CheckpointError
from llm.run.manifest import MANIFEST, write_manifest
from llm.training.resuming import checkpoint_to_resume
from robust_rlhf import main

BINARY = (".bin", ".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".parquet", ".joblib")


class Payload:
    """Unpickling this leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def disguises(path, mark):
    """Ways to hide a payload in a file of that name."""
    yield lambda: path.write_bytes(pickle.dumps(Payload(mark)))
    if path.suffix in (".bin", ".pkl", ".pt", ".pth"):
        yield lambda: torch.save(Payload(mark), path)
    if path.suffix in (".npy", ".npz"):
        objects = np.array([Payload(mark)], dtype=object)
        names = list(np.load(path)) if path.suffix == ".npz" else []
        yield lambda: np.savez(path, **dict.fromkeys(names, objects)) if names else np.save(path, objects)


def planted(folder, mark, read, *, every=False):
    """Hide a payload in one file after the other and read the folder; how many were read."""
    kept, tried = folder.with_name(f"{folder.name}-kept"), 0
    shutil.copytree(folder, kept)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        if not every and path.suffix not in BINARY:
            continue
        for hide in disguises(path, mark):
            hide()
            for checkpoint in {part for part in path.parents if (part / MANIFEST).exists()}:
                write_manifest(checkpoint)  # whoever hides it has read how checkpoints are written
            assert read() in (0, 1, 2), path  # and no traceback
            assert not mark.exists(), path
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            tried += 1
    shutil.rmtree(kept)
    return tried


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """Where a payload would show; it does where pickles are loaded."""
    monkeypatch.chdir(tmp_path)  # where reports are written
    file = tmp_path / "mark"
    pickle.loads(pickle.dumps(Payload(file)))
    assert file.exists()
    file.rmdir()
    return file


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


ALL = pytest.param(True, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize("every", [False, ALL])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints(kind, every, place, tmp_path, mark):
    run = halted(place, kind, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-1")
    assert planted(run, mark, lambda: main(command(place, kind, run, resume=True)), every=every) >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_earlier_versions(kind, place, tmp_path, mark):
    run = earlier(place, kind, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-1")
    assert planted(run, mark, lambda: main(command(place, kind, run, resume=True))) >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_libraries_look_for_in_checkpoints(kind, place, tmp_path, mark):
    """Beside those that are read, and instead of the weights."""
    for weights in (True, False):
        run = halted(place, kind, tmp_path / f"run-{weights}")
        names = ["pytorch_model.bin", "adapter_model.bin", "optimizer.bin", "scaler.pt", "training_args.bin",
                 "custom_checkpoint_0.pkl", "random_states_0.pkl", "sampler.bin", "dl_state_dict.bin"]  # fmt: skip
        for name in names:
            torch.save(Payload(mark), run / "checkpoint-2" / name)
        if not weights:
            for part in (run / "checkpoint-2").glob("*model.safetensors"):
                part.unlink()
        write_manifest(run / "checkpoint-2")
        assert main(command(place, kind, run, resume=True)) in (0, 2)
        assert not mark.exists()


def test_states_of_deepspeed(place, tmp_path, mark, monkeypatch):
    """It loads them as pickles itself, whatever is asked; so nothing but its own classes may stand in them."""
    checkpoint = halted(place, "sft", tmp_path / "run") / "checkpoint-2"
    (checkpoint / "global_step2").mkdir()
    state = checkpoint / "global_step2" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    names = ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.config")
    *_, module = modules = [types.ModuleType(name) for name in names]
    stage = enum.IntEnum("ZeroStageEnum", {"weights": 3}, module=module.__name__)
    module.__dict__["ZeroStageEnum"] = stage
    for part in modules:
        monkeypatch.setitem(sys.modules, part.__name__, part)
    own = {"zero_stage": stage(3), "fp32": torch.zeros(2)}
    torch.save(own, state)
    write_manifest(checkpoint)
    assert checkpoint_to_resume(tmp_path / "run") == checkpoint
    beside = own | {"scaler": Payload(mark)}
    for hide in (
        lambda: torch.save(beside, state),
        lambda: torch.save(beside, state, pickle_protocol=4),
        *disguises(state, mark),
    ):
        hide()
        write_manifest(checkpoint)
        with pytest.raises(CheckpointError, match=f"{state.name} (would run code .*mkdir|cannot be read)"):
            checkpoint_to_resume(tmp_path / "run")
        assert not mark.exists()


@pytest.mark.parametrize("every", [False, ALL])
@pytest.mark.parametrize("kind", ["dpo", "policy"])
def test_run_folders(kind, every, place, tmp_path, mark):
    """The doctor reads them, finished or not."""
    run = shutil.copytree(place.runs / kind, tmp_path / "run")
    for checkpoint in (1, 2):
        shutil.rmtree(run / f"checkpoint-{checkpoint}")
    assert planted(run, mark, lambda: main(["doctor", str(run)]), every=every) >= 3
    (run / "run.json").unlink()
    assert planted(run, mark, lambda: main(["doctor", str(run)]), every=every) >= 3


def evaluated(place, model, *more):
    return main(["evaluate", str(model), "--suite", str(place.inputs / "train.jsonl"), "--eval-pairs", "4", *more])


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


def adapter_in(place, folder):
    """An adapter on the starting policy, out of a checkpoint."""
    shutil.copytree(place.runs / "dpo" / "checkpoint-3", folder)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "ledger.npz", MANIFEST):
        (folder / name).unlink()
    return folder


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
        assert "asks for code of the hub, kernels-community/attention" in capsys.readouterr().err
        assert evaluated(place, model, *more, "--trust-remote-code") == 2
        assert fetched.pop() == "kernels-community/attention"
        # What is not installed is fetched, too.
        (model / "config.json").write_text(json.dumps(settings | {key: "flash_attention_2"}))
        assert evaluated(place, model, *more) == 2
        assert not fetched


def readers(place, tmp_path, model):
    """Every command that loads a model, with that one as the model, the start, the reward or the judge."""
    suite, out = str(place.inputs / "train.jsonl"), tmp_path / "out"
    yield ["evaluate", str(model), "--suite", suite, "--eval-pairs", "4"]
    yield ["evaluate", str(place.inputs / "rm"), "--suite", suite, "--eval-pairs", "4", "--against", str(model)]
    yield ["export", str(model), "--to", "rewardbench", "-o", str(tmp_path / "exported")]
    for kind in KINDS:
        yield command(place, kind, out, model=model, overwrite=out.exists())
    yield command(place, "policy", out, reward_model=model, overwrite=out.exists())
    yield command(place, "policy", out, reference_model=model, overwrite=out.exists())


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


@pytest.mark.parametrize("escape", ESCAPES)
def test_chat_templates(escape, place, tmp_path, mark):
    for name in ("rm", "start"):
        model = shutil.copytree(place.inputs / name, tmp_path / name)
        text = escape.replace("COMMAND", repr(f"touch {mark}")).replace("MARK", repr(str(mark)))
        (model / "chat_template.jinja").write_text(text + "{{ messages }}")
        for argv in readers(place, tmp_path, model):
            assert main(argv) in (0, 2), argv
            assert not mark.exists(), argv


def tagged(mark):
    """YAML that builds an object by a call."""
    return f"!!python/object/apply:os.system ['touch {mark}']"


def test_yaml(place, tmp_path, mark):
    """Recipes, sweeps, pipelines, and the card beside a starting model."""
    recipe = tmp_path / "recipe.yaml"
    for text in (tagged(mark), f"learning_rate: {tagged(mark)}"):
        recipe.write_text(text)
        for argv in (
            command(place, "reward", tmp_path / "run", config=recipe),
            ["sweep", "--config", str(recipe), "--output", str(tmp_path / "sweep")],
            ["pipeline", "--config", str(recipe)],
            ["demo", "--set", f"model={tagged(mark)}", "--output", str(tmp_path / "demo")],
        ):
            assert main(argv) == 2, argv
            assert not mark.exists(), argv
    model = shutil.copytree(place.inputs / "start", tmp_path / "model")
    (model / "README.md").write_text(f"---\nlicense: {tagged(mark)}\n---\n")
    assert main(command(place, "sft", tmp_path / "trained", model=model)) == 0
    assert not mark.exists()


def test_data_files(place, tmp_path, mark):
    """By the ending, whatever is inside; and a table that names a class."""
    for ending in ("jsonl", "json", "csv", "parquet", "jsonl.gz", "pkl", "arrow", "npz", "txt"):
        file = tmp_path / f"train.{ending}"
        file.write_bytes(pickle.dumps(Payload(mark)))
        assert main(["data", "show", str(file)]) == 2
        assert not mark.exists(), ending


SWEEP = {
    "data": "builtin",
    "builtin": {"train": 96, "test": 24},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 1, "batch_size": 16}},
    "grid": [{"ambiguity": ["erm", "tv:0.2"], "seeds": 1}],
    "shift_budget": True,
}


@pytest.fixture(scope="module")
def swept(once):
    """A finished sweep with its cache."""

    def build(folder):
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        assert main(sweep_in(folder)) == 0

    return once("sweep-without-code", build)


def sweep_in(folder):
    flags = ["--output", str(folder / "sweep"), "--cache", str(folder / "cache"), "--jobs", "1"]
    return ["sweep", "--config", str(folder / "sweep.yaml"), *flags]


def test_feature_caches(swept, tmp_path, mark):
    folder = shutil.copytree(swept, tmp_path / "of-a-sweep")
    shutil.rmtree(folder / "sweep")  # all is trained anew

    def again():
        shutil.rmtree(folder / "sweep", ignore_errors=True)
        return main(sweep_in(folder))

    assert planted(folder / "cache", mark, again) >= 4


def test_results_folders(swept, tmp_path, mark):
    """All arrays at once, then the table: the page says what it could not read."""
    folder = shutil.copytree(swept / "sweep", tmp_path / "sweep")
    arrays = list(folder.rglob("*.npz"))
    assert len(arrays) >= 3
    for path in arrays:
        *_, hide = disguises(path, mark)
        hide()
    assert main(["report", str(folder)]) == 0
    (folder / "results.parquet").write_bytes(pickle.dumps(Payload(mark)))
    assert main(["report", str(folder)]) == 0
    assert not mark.exists()


@pytest.mark.exhaustive
@pytest.mark.slow("a page is made for every file of a sweep")
def test_results_folders_file_by_file(swept, tmp_path, mark):
    folder = shutil.copytree(swept / "sweep", tmp_path / "sweep")
    assert planted(folder, mark, lambda: main(["report", str(folder)])) >= 6


@pytest.mark.exhaustive
@pytest.mark.slow("a sweep is begun again for every one of its files")
def test_sweep_folders(swept, tmp_path, mark):
    folder = shutil.copytree(swept, tmp_path / "of-a-sweep")
    assert planted(folder / "sweep", mark, lambda: main(sweep_in(folder)), every=True) >= 8


def test_reference_caches(place, tmp_path, mark):
    cache = tmp_path / "cache" / "reference.npz"
    argv = command(
        place, "dpo", tmp_path / "run", max_steps=1, lora_rank=0, reference="precomputed", reference_cache=cache
    )
    assert main(argv) == 0
    assert planted(cache.parent, mark, lambda: main([*argv, "--overwrite", "true"])) == 2


@pytest.mark.slow("a demo and a pipeline, each begun again for every one of their files")
@pytest.mark.exhaustive
def test_demo_folders(tmp_path, mark):
    argv = [
        "demo",
        "--ambiguity",
        "tv:0.2",
        "--max-pairs",
        "32",
        "--eval-pairs",
        "8",
        "--output",
        str(tmp_path / "demo"),
    ]
    argv += ["--set", "max_steps=2", "use_cpu=true", "max_length=32"]
    assert main(argv) == 0
    assert planted(tmp_path / "demo", mark, lambda: main([*argv, "--resume"])) >= 8


@pytest.mark.slow("a demo and a pipeline, each begun again for every one of their files")
@pytest.mark.exhaustive
def test_pipeline_folders(tmp_path, mark):
    write_pairs(generate(48, seed=3), tmp_path / "train.jsonl")
    common = {"use_cpu": True, "disable_tqdm": True, "max_length": 64, "per_device_train_batch_size": 8, "max_steps": 2}
    policy = {"max_new_tokens": 8, "prompts_per_step": 4, "samples": 2, "logging_steps": 1, "eval_prompts": 4}
    config = tmp_path / "rlhf.yaml"
    settings = {
        "output_dir": str(tmp_path / "run"),
        "train_file": str(tmp_path / "train.jsonl"),
        "sft": {"recipe": "sft-tiny", **common},
        "reward": {"recipe": "reward-tiny", **common},
        "policy": {"recipe": "policy-tiny", "robust": "tv:0.2,by=source", **policy, **common},
        "evaluation": {"pairs": [str(tmp_path / "train.jsonl")], "prompts": [str(tmp_path / "train.jsonl")]},
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(["pipeline", "--config", str(config)]) == 0
    assert planted(tmp_path / "run", mark, lambda: main(["pipeline", "--config", str(config)])) >= 8


def test_replays(tmp_path, mark):
    """Stored instances name a claim, never a module."""
    stored = tmp_path / "stored" / "replay.json"
    stored.parent.mkdir()
    assert main(["verify", "kl-penalty-gap", "--json", str(stored), "--jobs", "1"]) == 0
    assert planted(stored.parent, mark, lambda: main(["verify", "--replay", str(stored)]), every=True) == 1
    (tmp_path / "evil_claims.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    text = stored.read_text()
    found = json.loads(text)
    found["registry"] = "evil_claims:CLAIMS"
    for report in found["reports"]:
        report |= {"module": "evil_claims", "registry": "evil_claims:CLAIMS"}
    stored.write_text(json.dumps(found))
    assert main(["verify", "--replay", str(stored)]) in (0, 2)
    assert not mark.exists()
