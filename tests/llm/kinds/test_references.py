"""Reference log-probabilities on disk: what does not fit is computed again, and what was stopped goes on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from robust_trainers import PAIRS, arguments
from test_dpo import begin

from llm.kinds import reference as references
from llm.kinds.reference import put_reference
from llm.models.logprobs import answer_logps
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs


@pytest.fixture(scope="module")
def start():
    return begin()


@pytest.mark.parametrize("content", [b"", b"no archive", "of other pairs"])
def test_a_reference_of_a_run_alone_is_computed_again_where_it_does_not_fit(start, tmp_path, caplog, content):
    model, _, tokenizer, data = copy.deepcopy(start)
    cache, others = tmp_path / "reference.npz", encode_pairs(PAIRS, tokenizer, max_length=24)
    told = (PairCollator(tokenizer), arguments(tmp_path))
    if isinstance(content, bytes):
        cache.write_bytes(content)
    else:
        put_reference(model, {"train": others}, *told, cache=cache)
    put_reference(model, {"train": data}, *told, cache=cache, own=True)
    assert caplog.text.count("so it is computed again") == 1
    put_reference(model, {"train": data}, *told, cache=cache)  # which is refused where it does not fit


@pytest.mark.parametrize("harm", ["none", "cut off", "other pairs", "larger batches"])
def test_a_reference_that_was_broken_off_goes_on_where_it_stopped(start, tmp_path, monkeypatch, harm):
    model, _, tokenizer, data = copy.deepcopy(start)
    collator, args = PairCollator(tokenizer), arguments(tmp_path, per_device_eval_batch_size=4)
    put_reference(model, {"train": data}, collator, args, cache=tmp_path / "whole.npz")
    whole, asked = [data[row]["reference"] for row in range(len(data))], []

    def logps(model, inputs):
        asked.append(inputs["index"].tolist())
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer_logps(model, inputs)

    monkeypatch.setattr(references, "answer_logps", logps)
    cache = tmp_path / "reference.npz"
    with pytest.raises(KeyboardInterrupt):
        put_reference(model, {"train": data}, collator, args, cache=cache)
    (kept,) = tmp_path.glob(".reference-*.npz")
    if harm == "cut off":
        kept.write_bytes(kept.read_bytes()[:-40])
    if harm == "other pairs":
        data = encode_pairs(PAIRS, tokenizer, max_length=24)
    size = 7 if harm == "larger batches" else 4
    args = arguments(tmp_path, per_device_eval_batch_size=size)
    put_reference(model, {"train": data}, collator, args, cache=cache)
    batches = -(-len(data) // size)
    assert len(asked) == {"none": 1, "larger batches": 2}.get(harm, 3) + batches
    if harm == "larger batches":  # the first seven hold a row that was not known, and rounding is that of batches
        assert np.allclose([data[row]["reference"] for row in range(len(data))], whole, rtol=1e-5)
    elif harm != "other pairs":
        assert [data[row]["reference"] for row in range(len(data))] == whole
    assert not kept.exists()
