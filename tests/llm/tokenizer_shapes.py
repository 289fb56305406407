"""Tokenizers in the manners of real families, and their chat templates, written from their documentation."""

from __future__ import annotations

import json
from typing import Any

import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = "which colour has the dog cat bird number red blue green nobody knows they say it is answer user assistant"
TEXTS = [f"Which colour has the {b} number {i}? The {b} is {c}, they say. Nobody knows." for i, (b, c) in enumerate(
    (b, c) for b in ["dog", "cat", "bird"] for c in ["red", "blue", "green"])] * 2  # fmt: skip
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end|>", "<unk>"]
NAMED = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
UNENDED = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"  # says nothing of ends
FORGETFUL = (  # deletes the thoughts of every answer
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[USER]{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}[ASSISTANT]{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[ASSISTANT]<think>\n{% endif %}"
)
REWRITING = (  # takes an answer's thoughts apart and writes them in its own way, those of the last answer only
    "{% for m in messages %}{% set thoughts = m.reasoning_content | default('') %}{% set said = m.content %}"
    "{% if '</think>' in said %}{% set thoughts = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ thoughts }}\n</think>\n\n{% endif %}"
    "{{ said }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SWITCHED = (  # deletes thoughts unless told otherwise
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if (m.role == 'user' or preserve_thinking) else "
    "m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENED = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")  # the model goes on inside its thoughts
TEMPLATES = {
    "none": None, "llama2": LLAMA2, "zephyr": ZEPHYR, "chatml": CHATML, "trimmed": TRIMMED, "gemma": GEMMA, "phi": PHI,
    "forgetful": FORGETFUL, "rewriting": REWRITING, "switched": SWITCHED,
}  # fmt: skip


def _fast(inner: Tokenizer, around: str | None, special: list[str], **named: str) -> Any:
    if around:
        used = [(token, inner.token_to_id(token)) for token in special if token in around]
        inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=used)
    more = [token for token in special if token not in named.values()]
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=more, **named)


def bytewise(around: str | None = "<s> $A", *, prefix: bool = False) -> Any:
    """Byte-level BPE with merges: GPT-2, Llama 3, Qwen."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False))  # fmt: skip
    return _fast(inner, around, SPECIAL, **NAMED)


def greedy() -> Any:
    """Special tokens that take in the white space beside them: Phi-3, and the mask of BERT's kin."""
    tokenizer = bytewise()
    for token, sides in (("<|im_start|>", {"rstrip": True}), ("<|im_end|>", {"lstrip": True, "rstrip": True}),
                         ("</s>", {"lstrip": True}), ("<|end|>", {"rstrip": True})):  # fmt: skip
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False, **sides)])
    return tokenizer


def marked(around: str | None = "<s> $A", *, scheme: str = "always") -> Any:
    """A mark before words instead of spaces: Llama 2 and Mistral, of old and of now, which mark texts differently."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    every = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=every, show_progress=False))
    state = json.loads(inner.to_str())  # bytes are tokens as others are
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    return _fast(Tokenizer.from_str(json.dumps(state)), around, SPECIAL, **NAMED)


def wordpiece(*, lower: bool = True) -> Any:
    """Words and single letters between a first and a last token: BERT and its kin."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = [chr(i) for i in range(33, 127)]
    known = dict.fromkeys([*special, *signs, *("##" + sign for sign in signs), *WORDS.split()])
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lower)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _fast(inner, "[CLS] $A [SEP]", special, **named)


def slow() -> Any:
    """A tokenizer in Python, which knows no places of its tokens."""
    return tf.ByT5Tokenizer()


TOKENIZERS = {
    "bytewise": bytewise,
    "bytewise, prefix": lambda: bytewise(prefix=True),
    "bytewise, bare": lambda: bytewise(None),
    "bytewise, both ends": lambda: bytewise("<s> $A </s>"),
    "bytewise, greedy": greedy,
    "marked, prepended": lambda: marked(scheme="prepend"),
    "marked, always": lambda: marked(scheme="always"),
    "marked, first": lambda: marked(scheme="first"),
    "marked, never": lambda: marked(scheme="never"),
    "slow": slow,
}


def shaped(kind: str, template: str) -> Any:
    """A tokenizer of that kind with that template."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer
