"""Log-probabilities of answers, by every kind of decoder."""

from __future__ import annotations

import pytest
import torch
from shapes import DECODERS, answer_logp, save_start
from transformers import AutoModelForCausalLM

from llm.models.logprobs import answer_logps


@pytest.mark.parametrize("name", DECODERS)
def test_states_reach_the_output_layer_without_gaps(name, tmp_path):
    """Of a view with gaps torch copies the matrix of the layer once per sequence: twenty times the time on a CPU."""
    model = AutoModelForCausalLM.from_pretrained(save_start(name, tmp_path)).eval()
    ids = torch.randint(20, 90, (3, 12))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "answer_mask": (torch.arange(12) > 6).expand(3, 12),
    }
    whole = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: whole.append((args[0].shape[1], args[0].is_contiguous()))
    )
    logps = answer_logps(model, batch)
    handle.remove()
    assert whole == [(6, True)]
    expected = [answer_logp(model, row, 7) for row in ids.tolist()]
    torch.testing.assert_close(logps.detach().double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-4)
