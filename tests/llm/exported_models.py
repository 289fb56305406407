"""Pairs with odd answers, and models whose answers to them differ."""

from __future__ import annotations

import copy

import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair
from llm.models.loading import tiny_policy, tiny_reward_model

LENGTH = 64
CHAT = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
CHATS = {
    "plain": None,
    "frame in the template": "\n" + CHAT + "{% if add_generation_prompt %}<assistant>{% endif %}\n",
    "no frame": "{% for m in messages %}\n<{{ m['role'] }}>{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
}


def message(role, content):
    return {"role": role, "content": content}


ODD = Pair(
    "odd",
    (message("user", " a\nb "), message("assistant", "{{ok}}\n"), message("user", "é? <b>")),
    chosen="\n\nhello  ",
    rejected="no\n",
)
SYSTEM = Pair("system", (message("system", "Be kind."), message("user", "Hi")), chosen="yes", rejected="no")
PAIRS = [*generate(40, seed=5), ODD]
TEXTS = [text for pair in PAIRS for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected)]


def spread(model, seed=0):
    """Random matrices, large enough that answers differ."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    return model


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rewards(root):
    """The tiny reward model, a causal one without its own last token, one that counts positions from the left."""
    tiny, encoder = tiny_reward_model(TEXTS, max_length=LENGTH)
    encoder.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # more than the model takes
    encoder.init_kwargs["model_input_names"] = encoder.model_input_names
    saved(spread(tiny), encoder, root / "tiny")
    words, small = copy.deepcopy(tiny_policy(TEXTS, max_length=LENGTH)[1]), {"hidden_size": 32, "num_labels": 1}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": len(words)}
    bert = BertConfig(**small, max_position_embeddings=128, pad_token_id=words.pad_token_id)
    saved(spread(BertForSequenceClassification(bert)), encoder, root / "bert")
    words.backend_tokenizer.post_processor = None
    words.chat_template = CHATS["no frame"]
    llama = LlamaConfig(
        **small, pad_token_id=words.pad_token_id, rope_parameters={"rope_theta": 5e3, "rope_type": "default"}
    )
    saved(spread(LlamaForSequenceClassification(llama)), words, root / "llama")
