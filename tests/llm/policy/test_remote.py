"""The client against a server in a process of its own, which serves the tiny model well or badly."""

from __future__ import annotations

import copy
import socket
import time

import numpy as np
import pytest
import torch
from completions_server import KEY, ODD, Running
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.models.adapters import Adapter, with_adapter
from llm.models.loading import load_policy
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.generation.client import Client, EngineError, _opener
from llm.policy.generation.engine import Sampling
from llm.policy.generation.remote import RemoteEngine
from llm.policy.generation.settings import root_of
from llm.policy.generation.weights import ServerWeights
from llm.policy.observation import observed, sampler_gap
from llm.policy.token_draws import Lots, Purpose
from llm.training.config import ConfigError

LOTS = Lots(5, Purpose.TRAINING, step=2)
PROMPTS = [[5, 6, 7, 9, 11], [8, 9], [5, 6, 7, 9, 11]]


@pytest.fixture(scope="module")
def place(once):
    return once("remote-models", lambda folder: save_models(folder, generate(24, seed=11), max_length=96))


@pytest.fixture(scope="module")
def policy(place):
    """With weights at which answers end now and then."""
    model, tokenizer = load_policy(str(place / "start"))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, tokenizer


@pytest.fixture(scope="module")
def server(place, tmp_path_factory):
    running = Running(place / "start", tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


def engine_of(server, tokenizer, folder, *, sampling=None, door="reload", seconds=30.0, longest=96):
    weights = ServerWeights(client := Client(server.url, seconds), folder, door=door, longest=longest)
    return RemoteEngine(tokenizer, sampling or Sampling(6), client, weights)


def gap_of(model, tokenizer, answers, temperature=1.0):
    core = ActorCritic(model, critic=None, temperature=temperature)
    seen = observed(core, Reference(model), answers, pad=tokenizer.pad_token_id, size=8)
    return sampler_gap(answers, seen.logps)


@pytest.mark.parametrize("door", ["reload", "lora"])
def test_answers_are_drawn_with_the_weights_that_were_taken_last(door, place, policy, server, tmp_path):
    plain, tokenizer = policy
    model = (
        plain if door == "reload" else with_adapter(load_policy(str(place / "start"))[0], Adapter(2), task="CAUSAL_LM")
    )
    engine = engine_of(server, tokenizer, tmp_path / "weights", door=door)
    server.tell()
    for step in range(2):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(0.05 * torch.randn_like(parameter))
        before = copy.deepcopy(model.state_dict())
        engine.take(model, step=step)
        assert all(torch.equal(before[name], entry) for name, entry in model.state_dict().items())
        assert len(list((tmp_path / "weights").iterdir())) == 1
        answers = engine(model, PROMPTS, LOTS, samples=4)
        assert [answer.prompt for answer in answers] == [prompt for prompt in PROMPTS for _ in range(4)]
        assert gap_of(model, tokenizer, answers) < 1e-5
    engine.close()
    assert not (tmp_path / "weights").exists()
    paths = [path for path, _ in server.tell()]
    expected = {
        "reload": ["/collective_rpc", "/reset_prefix_cache?reset_running_requests=true"],
        "lora": ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/load_lora_adapter"],
    }[door]
    controls = [path for path in paths if path != "/v1/completions"]
    assert controls == (expected * 2 if door == "reload" else expected)


def test_seeds_and_ends_decide_the_answers(policy, server, tmp_path):
    """By (seed, purpose, step, prompt), whatever else is asked with it; up to the first end and with it."""
    model, tokenizer = policy
    engine = engine_of(server, tokenizer, tmp_path, sampling=Sampling(12))
    server.tell()
    engine.take(model, step=0)
    answers = engine(model, PROMPTS, LOTS, samples=6)
    part = engine(model, PROMPTS[1:2], LOTS, samples=6, positions=[1])
    assert [answer.ids for answer in part] == [answer.ids for answer in answers[6:12]]
    assert len({str(answer.ids) for answer in answers}) > 12  # also of the prompt that is asked twice
    ends = engine.ends(model)
    for answer in answers:
        assert answer.ended == (answer.ids[-1] in ends)
        assert not set(answer.ids[:-1]) & set(ends)
        assert answer.ended or len(answer.ids) == 12
    assert {answer.ended for answer in answers} == {True, False}
    others = [
        engine(model, PROMPTS, lots, samples=6) for lots in (Lots(6, Purpose.TRAINING, 2), Lots(5, Purpose.TRAINING, 3))
    ]
    assert all([a.ids for a in other] != [a.ids for a in answers] for other in others)
    asked = [body for path, body in server.tell() if path == "/v1/completions"]
    assert len({body["seed"] for body in asked}) == 9
    assert all(body["repetition_penalty"] == 1 and body["top_k"] == body["min_p"] == 0 for body in asked)


@pytest.mark.parametrize("processed", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(6, temperature=1.5), Sampling(6, top_p=0.6)])
def test_what_a_server_tells_of_other_distributions_shows_in_the_gap(sampling, processed, policy, server, tmp_path):
    """Before the temperature as vLLM does by itself, or after all that is done to the logits."""
    model, tokenizer = policy
    engine = engine_of(server, tokenizer, tmp_path, sampling=sampling)
    server.tell(processed=processed)
    engine.take(model, step=0)
    gap = gap_of(model, tokenizer, engine(model, PROMPTS, LOTS, samples=4), sampling.temperature)
    ours = processed if sampling.temperature != 1 else not processed
    assert (gap < 1e-5) == ours
    assert ours or gap > 1e-2


FAULTS = {
    "fewer": "gave 3 answers to a prompt where 4 were asked for",
    "no ids": "gave no ids of tokens where an answer has 1 to 6",
    "out of vocabulary": "wrote token 1000000, and the policy has",
    "another prompt": "does not repeat the prompt that it was sent",
    **dict.fromkeys(ODD, "gave a log-probability that is no finite number, or above 0"),
    "no log-probabilities": "gave 0 log-probabilities for",
    "cut short": "ended an answer after 1 of 6 tokens",
    "behind the end": "which ends an answer, and the policy was not updated: take a server that heeds stop_token_ids",
    "no JSON": "answered what is no JSON ('<html>Welcome</html>')",
    "packed": "answered what is no JSON",
    "sends elsewhere": "answered with status 302 (Found), and the policy was not updated: name the server itself",
    "a list": "answered a list where an object of JSON is needed",
    "fails": "answered with status 500 (EngineCore died), and the policy was not updated: look at the log of",
    "no such path": "answered with status 404 (The model `base` does not exist.)",
    "late": "did not answer within 0.7 s (vllm_seconds)",
    "drips": "did not answer within 0.7 s (vllm_seconds)",
    "wants a key": "answered with status 401 (Unauthorized), and the policy was not updated: set VLLM_API_KEY",
    "closed doors": "VLLM_SERVER_DEV_MODE=1",
    "reload fails": "/collective_rpc answered with status 500 (CUDA out of memory)",
    "reads little": "reads at most 8 tokens and max_length is 96",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_something_else_is_told_in_one_sentence(fault, policy, server, tmp_path):
    model, tokenizer = policy
    late = fault in ("late", "drips")
    engine = engine_of(server, tokenizer, tmp_path)
    server.tell(fault if not late else "")

    def rollout():
        engine.take(model, step=0)
        server.tell(fault)
        engine.server = engine.server._replace(client=Client(server.url, 0.7 if late else 30))
        engine(model, PROMPTS[:2], LOTS, samples=4)

    begun = time.monotonic()
    with pytest.raises(EngineError) as caught:
        rollout()
    assert time.monotonic() - begun < 30  # the slow one would take a minute
    said = str(caught.value)
    assert FAULTS[fault] in said
    assert server.url in said
    assert "and the policy was not updated: " in said
    assert "\n" not in said


def test_a_closed_door_for_adapters_names_what_opens_it(place, server, tmp_path):
    base, tokenizer = load_policy(str(place / "start"))
    model = with_adapter(base, Adapter(2), task="CAUSAL_LM")
    server.tell("closed doors")
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"):
        engine_of(server, tokenizer, tmp_path, door="lora").take(model, step=0)


def test_a_key_from_the_environment_is_sent(policy, server, tmp_path, monkeypatch):
    model, tokenizer = policy
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    server.tell("wants a key")
    engine = engine_of(server, tokenizer, tmp_path)
    engine.take(model, step=0)
    assert len(engine(model, PROMPTS, LOTS)) == 3


def test_no_server_at_all(policy, tmp_path):
    model, tokenizer = policy
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{free.getsockname()[1]}", 5)
    engine = RemoteEngine(tokenizer, Sampling(2), client, ServerWeights(client, tmp_path, door="reload", longest=8))
    with pytest.raises(EngineError, match=r"does not answer .*start the server again and continue with --resume"):
        engine.take(model, step=0)


def test_a_proxy_or_a_certificate_in_between_is_named(server, monkeypatch):
    """Each with what goes past it."""
    server.tell()
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("llm.policy.generation.client._opener", _opener.__wrapped__)
    assert Client(server.url, 9).told("/v1/models")["data"]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(EngineError, match=r"was asked through http_proxy, and NO_PROXY=127\.0\.0\.1 asks it directly"):
        Client(server.url, 9).told("/v1/models")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Client(server.url, 9).told("/v1/models")["data"]
    with pytest.raises(EngineError, match="the policy was not updated: let SSL_CERT_FILE name the certificates"):
        Client(server.url.replace("http", "https"), 9).told("/v1/models")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000", "ftp://host", "http://", "http://host:99999", "http://me:secret@host", "http://h?x=1",
        "http://h/v1#", "http://h?", "http://two hosts", "http://h/v1\n",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError, match="vllm_server_base_url") as caught:
        root_of(url)
    assert "secret" not in str(caught.value)


def test_seeds_are_all_different_and_fit_a_number_of_json():
    seeds = [
        Lots(seed, purpose, step).seed_of(prompt)
        for seed in (0, 1, 2**40) for purpose in Purpose for step in (0, 1) for prompt in range(50)
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < max(seeds) < 2**53
    assert np.isclose(np.mean(seeds) / 2**53, 0.5, atol=0.05)
