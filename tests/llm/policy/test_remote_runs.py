"""Policy runs whose answers a server writes: logged, corrected, stopped by its faults, resumed, and over ranks."""

from __future__ import annotations

import json

import command_lines
import pytest
import torch
from checkpoint_runs import same_end, untimed, weights
from completions_server import Running
from forked import finished, start_ranks
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.policy.trainer import PolicyTrainer
from llm.run.folder import latest_checkpoint
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    def build(folder):
        pairs = generate(48, seed=11)
        write_pairs(pairs, folder / "train.jsonl")
        save_models(folder, pairs, max_length=96)

    return once("remote-runs", build)


@pytest.fixture(scope="module")
def lasting(place, tmp_path_factory):
    running = Running(place / "start", tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def server(lasting):
    """One for all tests, which behaves until it is told otherwise."""
    lasting.tell()
    return lasting


def command(place, output, url, **more):
    told = {
        "config": "policy-tiny", "model": place / "start", "train_file": place / "train.jsonl", "output_dir": output,
        "reward_model": place / "rm", "max_steps": 3, "prompts_per_step": 4, "samples": 2, "max_new_tokens": 6,
        "max_length": 96, "save_steps": 1, "save_total_limit": 9, "logging_steps": 1, "disable_tqdm": True,
        "use_cpu": True, "plain_share": 0, "ambiguity": "tv:0.3,by=source", "learning_rate": 3e-3,
        **({"vllm_server_base_url": url} if url else {}), **more,
    }  # fmt: skip
    return ["train", "policy", *command_lines.flags(told)]


def history(run):
    return json.loads((run / "run.json").read_text())["history"]


def from_step(monkeypatch, step, act):
    """Call ``act`` when that step begins, counted from 0."""
    taken = PolicyTrainer.take_step

    def take_step(self):
        if self.step == step:
            act()
        return taken(self)

    monkeypatch.setattr(PolicyTrainer, "take_step", take_step)


def test_a_run_is_logged_and_one_whose_server_died_goes_on_with_another_as_if_it_had_not(
    place, server, tmp_path, monkeypatch, capsys
):
    whole, broken, mortal = tmp_path / "whole", tmp_path / "broken", Running(place / "start", tmp_path)
    assert main(command(place, whole, server.url + "/v1/")) == 0
    assert len(history(whole)) == 3
    for row in history(whole):
        assert row["sampler_gap"] < 1e-5
        assert row["importance_ratio"] == pytest.approx(1, abs=1e-4)
        assert row["importance_effective_share"] == pytest.approx(1, abs=1e-4)
        assert row["importance_clipped"] == 0
    assert not (whole / ".vllm-weights").exists()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        from_step(patch, 2, lambda: mortal.tell("dies"))
        assert main(command(place, broken, mortal.url)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == error.count("robust-rlhf: ") == 1
    assert "does not answer" in error
    assert latest_checkpoint(broken).name == "checkpoint-2"
    assert main(command(place, broken, None, resume=True)) == 2
    assert "another vllm_server_base_url" in capsys.readouterr().err
    assert main(command(place, broken, server.url, resume=True, vllm_seconds=20)) == 0
    assert same_end(whole, broken)
    assert untimed(history(whole)) == untimed(history(broken))


def test_weights_that_a_server_did_not_read_stop_the_run_and_it_goes_on(place, server, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        from_step(patch, 1, lambda: server.tell("stale"))
        assert main(command(place, run, server.url)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == error.count("robust-rlhf: ") == 1
    assert "draws answers from another distribution than the one that is trained" in error
    assert "start it again and continue with --resume" in error
    assert latest_checkpoint(run).name == "checkpoint-1"
    server.tell()
    assert main(command(place, run, server.url, resume=True)) == 0
    assert len(history(run)) == 3


def test_a_server_of_another_model_stops_the_run_before_its_first_update_or_is_corrected(
    place, server, tmp_path, capsys
):
    """By how much its log-probabilities differ is a setting; what differs less is weighed by what it differs."""
    server.tell("another model")
    assert main(command(place, tmp_path / "run", server.url)) == 2
    assert "differ by 0.05 nats on average, more than max_sampler_gap (0.001)" in capsys.readouterr().err
    assert latest_checkpoint(tmp_path / "run") is None
    borne = {"max_sampler_gap": 0.1, "max_steps": 1}
    assert main(command(place, tmp_path / "cut", server.url, importance_ratios="answers:1.1", **borne)) == 0
    assert main(command(place, tmp_path / "off", server.url, importance_ratios="off", **borne)) == 0
    (cut,), (off,) = history(tmp_path / "cut"), history(tmp_path / "off")
    assert cut["sampler_gap"] == pytest.approx(0.05, abs=1e-5) == off["sampler_gap"]
    assert cut["importance_ratio"] == pytest.approx(2.718281828 ** (0.05 * cut["answer_tokens"]), rel=2e-2)
    assert cut["importance_clipped"] > 0.5
    assert "importance_ratio" not in off
    assert not same_end(tmp_path / "cut", tmp_path / "off")


@pytest.mark.exhaustive(turns=8)
def test_two_processes_train_on_the_answers_of_one(place, server, tmp_path):
    plain = {"optim": "sgd", "max_steps": 2}
    assert main(command(place, tmp_path / "one", server.url, **plain)) == 0
    alone = server.tell()
    finished(start_ranks(main, command(place, tmp_path / "two", server.url, prompts_per_step=2, **plain)))
    together = server.tell()
    assert [path for path, _ in together].count("/collective_rpc") == 2
    questions, others = (
        sorted((body["seed"], *body["prompt"]) for _, body in asked if body.get("max_tokens", 0) > 1)
        for asked in (alone, together)
    )
    assert questions == others
    assert len(set(questions)) == 8
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@pytest.mark.exhaustive
def test_two_processes_fail_together(place, server, tmp_path):
    server.tell("cut short")
    ranks = start_ranks(main, command(place, tmp_path / "bad", server.url, prompts_per_step=2, ddp_timeout=60))
    said = [rank.communicate(timeout=200)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert sum(text.count("ended an answer after 1 of 6 tokens") for text in said) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (None, "does not answer"),
        ("no JSON", "answered what is no JSON"),
        ("reads little", "reads at most 8 tokens and max_length is 96"),
        ("no such path", "answered with status 404"),
        ("no log-probabilities", "gave 0 log-probabilities for 1 tokens"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_server_is_asked_before_anything_is_loaded(
    dry_run, fault, said, place, server, tmp_path, monkeypatch, capsys
):
    for name in ("load_policy", "mixed_prompts", "load_scorer"):
        monkeypatch.setattr(f"llm.policy.run.{name}", None)
    server.tell(fault or "")
    url = server.url if fault else "http://127.0.0.1:1"
    assert main(command(place, tmp_path / "run", url, dry_run=dry_run)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "and nothing was loaded yet: " in error
    assert not (tmp_path / "run").exists()


def test_a_plan_says_who_writes_the_answers_and_which_door_is_closed(place, server, tmp_path, capsys, caplog):
    for fault in ("", "closed doors"):
        caplog.clear()
        server.tell(fault)
        assert main(command(place, tmp_path / "run", server.url, dry_run=True)) == 0
        assert "which serves base" in " ".join(capsys.readouterr().out.split())
        assert ("VLLM_SERVER_DEV_MODE=1" in caplog.text) == bool(fault)


def test_an_adapter_alone_is_sent_where_one_is_trained(place, server, tmp_path):
    pytest.importorskip("peft")
    assert main(command(place, tmp_path / "run", server.url, lora_rank=2, max_steps=2)) == 0
    paths = [path for path, _ in server.tell()]
    assert paths.count("/v1/load_lora_adapter") == 2
    assert "/collective_rpc" not in paths
    assert max(row["sampler_gap"] for row in history(tmp_path / "run")) < 1e-5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"vllm_server_base_url": "localhost:8000"}, "vllm_server_base_url is http://HOST:PORT"),
        ({"vllm_weights": "lora"}, "vllm_weights=lora sends an adapter, and there is none"),
        ({"temperature": 0.7, "top_p": 0.9}, "leave top_p or temperature at 1"),
        ({"vllm_seconds": 0}, "vllm_seconds must be positive"),
        ({"importance_ratios": "answers:0"}, "importance_ratios is answers:X or tokens:X"),
        ({"importance_ratios": "sequences:3"}, "importance_ratios is answers:X or tokens:X"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said, place, tmp_path, capsys):
    url = wrong.pop("vllm_server_base_url", "http://127.0.0.1:1")
    assert main(command(place, tmp_path / "x", url, **wrong)) == 2
    assert said in capsys.readouterr().err
