"""Answers are drawn from the policy that is trained, whatever generation settings its folder holds."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from bigram import bigram, trainer
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from llm.data.corpus.corpus import generate
from llm.models.fetching import ModelError
from llm.models.loading import tiny_policy
from llm.policy.observation import SamplerMismatch, sampler_gap
from llm.policy.rollouts import Answer, Answers, Sampling
from llm.policy.token_draws import Lots, Purpose

LOTS = Lots(3, Purpose.TRAINING)

# Every field that can change what `generate` draws, how long it draws, or what it returns, at a value that does.
CHANGED = {
    "temperature": 0.3, "top_k": 2, "top_p": 0.3, "min_p": 0.4, "top_h": 0.3, "typical_p": 0.3, "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.2, "do_sample": False, "num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 1.0,
    "length_penalty": 3.0, "early_stopping": True, "penalty_alpha": 0.6, "dola_layers": "high", "guidance_scale": 2.0,
    "repetition_penalty": 1.5, "encoder_repetition_penalty": 1.5, "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[7]], "force_words_ids": [[7]], "constraints": [],
    "sequence_bias": [[[7], 9.0]], "suppress_tokens": list(range(20, 300)), "begin_suppress_tokens": [*range(20, 300)],
    "forced_bos_token_id": 7, "forced_eos_token_id": 7, "exponential_decay_length_penalty": [1, 3.0],
    "max_length": 5, "max_new_tokens": 2, "min_length": 500, "min_new_tokens": 8, "max_time": 1e-9,
    "stop_strings": ["e"], "use_mtp": True, "speculation_type": "mtp", "assistant_ensemble_weight": 0.5,
    "renormalize_logits": True, "remove_invalid_values": True, "num_return_sequences": 2, "token_healing": True,
    "output_attentions": True, "output_hidden_states": True, "output_scores": True, "output_logits": True,
    "return_dict_in_generate": True, "watermarking_config": {"greenlist_ratio": 0.25, "bias": 9.0},
    "low_memory": True, "prefill_chunk_size": 2, "cache_implementation": "static", "is_assistant": True,
    "num_assistant_tokens": 3, "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.1,
    "prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 2, "assistant_early_exit": 1,
    "assistant_lookbehind": 3, "target_lookbehind": 3,
}  # fmt: skip
# Which tokens are special, how fast it goes, and what `generate` does not read.
HARMLESS = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache",
    "cache_config", "max_cache_len", "compile_config", "disable_compile", "continuous_batching_config",
    "custom_generate", "trust_remote_code",
}  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    model, tokenizer = tiny_policy((pair.prompt[-1]["content"] for pair in generate(40, seed=5)), max_length=64)
    with torch.no_grad():
        model.lm_head.weight *= 6  # far from uniform, so that every setting would show
    return model, tokenizer


def written(policy, **entries):
    model, tokenizer = policy
    plain = model.generation_config
    model.generation_config = asked = GenerationConfig.from_dict({**plain.to_dict(), "do_sample": True, **entries})
    try:
        found = Answers(tokenizer, Sampling(8), batch_size=4)(model, [[5, 6, 7], [8, 9]], LOTS, samples=4)
        assert model.generation_config is asked  # back as it was
    finally:
        model.generation_config = plain
    return found


@pytest.mark.parametrize("field", CHANGED)
def test_no_setting_of_the_file_changes_an_answer(policy, field):
    assert written(policy, **{field: CHANGED[field]}) == written(policy)


def test_the_table_holds_every_setting_of_the_library():
    known = {name for name in GenerationConfig().to_dict() if not name.startswith("_")}
    assert known <= CHANGED.keys() | HARMLESS


@pytest.mark.parametrize("entry", [{"repetition_penalty": 1.5}, {"suppress_tokens": [2, 3]}, {"temperature": 0.5}])
def test_answers_have_the_frequencies_of_the_softmax(tmp_path, entry):
    """Two tokens, the second given the first; five standard errors of 20,000 answers."""
    logits = np.array([[0.5, -0.2, 0.1], [-1.0, 0.3, 0.8]])
    model = bigram(2, 3, logits)
    following = np.array([[0.2, 0.1, -0.4], [1.0, -1.0, 0.0], [0.3, 0.0, -0.8]])  # after each of the actions
    with torch.no_grad():
        model.lm_head.weight[2:5, 2:5] = torch.tensor(following).T
    model.generation_config = GenerationConfig(**entry)
    subject = trainer(model, np.zeros((2, 3)), tmp_path, actions=3)
    pen = Answers(subject.pen.tokenizer, Sampling(2), batch_size=20_000)
    found = pen(model, [subject.encoded[0]], LOTS, samples=20_000)
    counts = np.zeros((3, 3))
    for answer in found:
        counts[answer.ids[0] - 2, answer.ids[1] - 2] += 1
    first, second = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits[0], following))
    expected = first[:, None] * second
    assert np.all(np.abs(counts / 20_000 - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000))


@pytest.mark.parametrize("ends", ["</s>", [2, "</s>"], -1, 2.5, True])
def test_the_end_of_an_answer_is_a_token(policy, ends):
    model, tokenizer = policy
    plain = model.generation_config
    model.generation_config = GenerationConfig()
    model.generation_config.eos_token_id = ends
    try:
        with pytest.raises(ModelError, match=r"eos_token_id of the model's generation_config\.json must be ids"):
            Answers(tokenizer, Sampling(1), batch_size=2)(model, [[5, 6]], LOTS)
    finally:
        model.generation_config = plain


def test_what_is_not_heeded_is_named_once(policy, caplog):
    model, tokenizer = policy
    plain = model.generation_config
    model.generation_config = GenerationConfig(repetition_penalty=1.1, top_k=20, eos_token_id=2, pad_token_id=0)
    try:
        with caplog.at_level(logging.WARNING, logger="llm.policy.generation.engine"):
            for _ in range(2):  # a run trains by one pen and judges by another
                pen = Answers(tokenizer, Sampling(1), batch_size=2)
                for _ in range(2):
                    pen(model, [[5, 6]], LOTS)
    finally:
        model.generation_config = plain
    (said,) = [record.getMessage() for record in caplog.records if record.name == "llm.policy.generation.engine"]
    assert "repetition_penalty=1.1" in said
    assert "top_k=20" in said
    assert "token_id" not in said


@pytest.mark.parametrize(
    "sampling", [Sampling(6), Sampling(6, temperature=2.0), Sampling(6, temperature=0.7, top_p=0.5)]
)
def test_the_sampler_tells_what_it_drew_with(policy, sampling):
    """Against one sequence at a time, without padding; with top_p the log-probabilities are those of the whole."""
    model, tokenizer = policy
    found = Answers(tokenizer, sampling, batch_size=4)(model, [[5, 6, 7, 9, 11], [8, 9]], LOTS, samples=3)
    assert len(found) == 6
    for answer in found:
        assert answer.ids
        with torch.no_grad():
            logits = model(torch.tensor([answer.prompt + answer.ids])).logits[0, len(answer.prompt) - 1 : -1]
        own = (logits / sampling.temperature).log_softmax(-1)[range(len(answer.ids)), answer.ids]
        assert answer.logps == pytest.approx(own.tolist(), abs=1e-5)


def test_a_gap_is_the_mean_over_tokens_that_were_told():
    told = [([2, 3], [-1.0, -2.0]), ([2], None), ([4], [-3.0])]
    answers = [Answer([1], ids, ended=True, logps=logps) for ids, logps in told]
    logps = torch.tensor([[-1.5, -2.0], [-9.0, 0.0], [-2.0, 0.0]])
    assert sampler_gap(answers, logps) == pytest.approx(0.5)
    assert math.isnan(sampler_gap(answers[1:2], logps))


def test_a_run_whose_sampler_is_another_distribution_stops_before_its_first_update(tmp_path, monkeypatch):
    """As a sampler would be that heeds a penalty, whoever it took it from."""
    model = bigram(2, 3, np.array([[0.5, -0.2, 0.1], [-1.0, 0.3, 0.8]]))
    subject = trainer(model, np.array([0.0, 1.0, 2.0]), tmp_path, actions=3, prompts=2, samples=8, max_new_tokens=4)
    row = subject.take_step()
    assert row["sampler_gap"] < 1e-6
    subject.step = 1
    assert "sampler_gap" not in subject.take_step()

    def penalised(self, *args, logits_processor, **kwargs):
        return LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3), *logits_processor])

    monkeypatch.setattr(type(model), "_get_logits_processor", penalised)
    subject = trainer(model, np.array([0.0, 1.0, 2.0]), tmp_path, actions=3, prompts=2, samples=8, max_new_tokens=4)
    before = model.lm_head.weight.detach().clone()
    with pytest.raises(SamplerMismatch, match="max_sampler_gap"):
        subject.train()
    assert torch.equal(model.lm_head.weight, before)
    subject.config.max_sampler_gap = 9.0
    assert subject.take_step()["sampler_gap"] > 1e-3
