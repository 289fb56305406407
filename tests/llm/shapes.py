"""Ten architectures as tiny models of random weights, and what plain transformers code makes of a pair.

Tokenizers have one token per byte, so tokens do not depend on where a text is cut. What is written here is written down
by hand, from the documentation of the models, and not by the code under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WIDTH, LAYERS, HEADS = 16, 2, 2
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "max_position_embeddings": 96, "initializer_range": 0.3,
}  # fmt: skip
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Shape(NamedTuple):
    """A family of models.

    Attributes:
        tokenizer: Names of the special tokens, in the order of their numbers, the token of padding included.
        around: What stands before and after a text that a reward model reads.
        frame: What the tokenizer itself puts there.
        config: The configuration, from the tokenizer.
        template: The chat template of the start, if it has one.
        asked: How a question is written.
        answered: How an answer is written behind it.
        behind: What the template writes behind the token that ends an answer: read, and not written.
    """

    tokenizer: dict[str, str]
    around: tuple[str, str]
    frame: str | None
    config: Any
    template: str | None = None
    asked: str = "User: {}\n\nAssistant:"
    answered: str = " {}"
    behind: str = ""


def _ids(tokenizer: Any, *names: str) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def _encoder(config: Any, *names: str, **more: Any) -> Any:
    return lambda t: config(**SIZES | {"vocab_size": len(t)} | _ids(t, "pad", *names) | more)


def _decoder(config: Any, **more: Any) -> Any:
    sizes = SIZES | {"num_key_value_heads": 1, "head_dim": 8} | more
    return lambda t: config(**sizes | {"vocab_size": len(t)} | _ids(t, "pad", "bos", "eos"))


def _gpt2(t: Any) -> Any:
    return tf.GPT2Config(
        vocab_size=len(t), n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=96, initializer_range=0.3,
        **_ids(t, "pad", "bos", "eos"),
    )  # fmt: skip


def _distilbert(t: Any) -> Any:
    return tf.DistilBertConfig(
        vocab_size=len(t), dim=WIDTH, hidden_dim=24, n_layers=LAYERS, n_heads=HEADS, max_position_embeddings=96,
        initializer_range=0.3, **_ids(t, "pad"),
    )  # fmt: skip


def _gemma3(t: Any) -> Any:
    """A composite configuration, whose text model pads with another token than its tokenizer, and drops attention."""
    text = _decoder(tf.Gemma3TextConfig, sliding_window=64, attention_dropout=0.5)(t).to_dict() | {"pad_token_id": 9}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 16, "patch_size": 8}
    tokens = {"image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5}
    config = tf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **tokens)
    config.initializer_range = 0.3
    return config


BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
GEMMA = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
_BERTS = (BERT, ("[CLS]", "[SEP]"), "[CLS] $A [SEP]")
_DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
_MODERN = {
    "global_attn_every_n_layers": 1,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_cutoff_factor": 9.0,
}
ENCODERS = {
    "bert": Shape(*_BERTS, _encoder(tf.BertConfig)),
    "roberta": Shape(ROBERTA, ("<s>", "</s>"), "<s> $A </s>", _encoder(tf.RobertaConfig, "bos", "eos")),
    "distilbert": Shape(*_BERTS, _distilbert),
    "electra": Shape(*_BERTS, _encoder(tf.ElectraConfig, embedding_size=WIDTH)),
    "deberta": Shape(*_BERTS, _encoder(tf.DebertaV2Config, pooler_hidden_size=WIDTH, **_DEBERTA)),
    "modernbert": Shape(*_BERTS, _encoder(tf.ModernBertConfig, "cls", "sep", **_MODERN)),
}
DECODERS = {
    "gpt2": Shape(
        {"bos_token": "<|end|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}, ("", "<|end|>"), None, _gpt2
    ),
    "llama": Shape(
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}, ("<s>", "</s>"), "<s> $A",
        _decoder(tf.LlamaConfig, tie_word_embeddings=True),
    ),
    "qwen": Shape(
        {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}, ("", "<|im_end|>"), None, _decoder(tf.Qwen2Config),
        CHATML, "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}", "\n",
    ),
    "gemma3": Shape(GEMMA, ("<bos>", "<eos>"), "<bos> $A", _gemma3),
}  # fmt: skip
SHAPES = ENCODERS | DECODERS
_MORE = {"qwen": ["<|im_start|>"], "gemma3": ["<image>", "<boi>", "<eoi>"]}


def tokenizer_of(name: str) -> Any:
    shape = SHAPES[name]
    special = [*dict.fromkeys(shape.tokenizer.values()), *_MORE.get(name, [])]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate(special + letters)}, []))
    inner.add_special_tokens(special)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if shape.frame:
        used = [(token, inner.token_to_id(token)) for token in special if token in shape.frame]
        inner.post_processor = processors.TemplateProcessing(single=shape.frame, special_tokens=used)
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=94, **shape.tokenizer)
    tokenizer.chat_template = shape.template
    return tokenizer


def save_start(name: str, folder: Path, *, side: str = "right", seed: int = 0) -> Path:
    """A pretrained model without a reward head, whose tokenizer says ``side``."""
    tokenizer = tokenizer_of(name)
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = side
    torch.manual_seed(seed)
    kind = tf.AutoModelForCausalLM if name in DECODERS else tf.AutoModel
    kind.from_config(SHAPES[name].config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def whole_text(name: str, question: str, answer: str) -> str:
    """What a model of that shape reads of an answered question, special tokens included."""
    return written_text(name, question, answer) + SHAPES[name].behind


def written_text(name: str, question: str, answer: str) -> str:
    """The same up to the token that ends the answer."""
    return prompt_text(name, question) + SHAPES[name].answered.format(answer) + SHAPES[name].around[1]


def prompt_text(name: str, question: str) -> str:
    """The part of ``whole_text`` that an answer follows on."""
    return SHAPES[name].around[0] + SHAPES[name].asked.format(question)


def own_tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def reward(model: Any, ids: list[int]) -> float:
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def answer_logp(model: Any, ids: list[int], start: int) -> float:
    """Log-probability of ``ids[start:]`` after what stands before."""
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logps[place - 1, ids[place]]) for place in range(start, len(ids)))
