"""Does another tool read an exported model as its training did? Tokens and rewards on a sample of pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..data.pairs import DataError, Pair
from ..models.logprobs import evaluation_mode
from ..text.encoding import EncodedPairs, encode_pairs
from ..text.tokens import Reader
from .lm_eval import question, their_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]
Reading = Callable[[Pair], tuple[Tokens, Tokens]]  # what a tool makes of a pair, the chosen answer first
_UNCUT = 10**6


@dataclass(frozen=True)
class Agreement:
    """How a tool reads a sample of pairs, against the training.

    Attributes:
        answers: Answers compared.
        same: Answers with the very same tokens.
        longer: Answers that are cut to ``max_length`` tokens, or their prompts; tools may cut elsewhere, or not.
        padding: Largest change of a reward by padding on the left, in standard deviations of the rewards; policies: 0.
    """

    answers: int
    same: int
    longer: int
    padding: float = 0.0


def agreement(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    reading: Reading,
    *,
    policy: bool = False,
) -> Agreement:
    """Compare the tokens of both answers of all pairs that can be read; a ``policy`` reads nothing behind an answer."""
    cut, whole = (encode_pairs(pairs, tokenizer, max_length=limit) for limit in (max_length, _UNCUT))
    kept = sorted(set(cut.kept) & set(whole.kept))
    ours, uncut = (list(_answers(encoded, kept, policy=policy)) for encoded in (cut, whole))
    theirs = [tokens for place in kept for tokens in reading(pairs[place])]
    return Agreement(
        answers=len(ours),
        same=sum(a == b for a, b in zip(ours, theirs, strict=True)),
        longer=sum(a != b for a, b in zip(ours, uncut, strict=True)),
    )


def _answers(encoded: EncodedPairs, kept: Sequence[int], *, policy: bool) -> Iterator[Tokens]:
    for place in kept:
        item = encoded[encoded.kept.index(place)]
        yield item["chosen"][: item["chosen_span"][1] if policy else None]
        yield item["rejected"][: item["rejected_span"][1] if policy else None]


def lm_eval_reading(tokenizer: PreTrainedTokenizerBase, reads: PreTrainedTokenizerBase) -> Reading:
    """The harness reads prompt and answer as one text, of which ``tokenizer`` made the questions, with ``reads``."""
    reader = Reader(tokenizer)

    def read(pair: Pair) -> tuple[Tokens, Tokens]:
        asked = question(pair, reader)
        if asked is None:
            raise DataError(f"pair {pair.id!r} cannot be asked")
        chosen, rejected = (asked["answers"][place] for place in (asked["label"], 1 - asked["label"]))
        return their_tokens(reads, asked["context"], chosen), their_tokens(reads, asked["context"], rejected)

    return read


def rewardbench_reading(tokenizer: Any, template: str, max_length: int, *, policy: bool) -> Reading:
    """RewardBench renders by the chat template and cuts on the left; its DPO code frames the text itself."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side = "left"

    def tokens(pair: Pair, answer: str) -> Tokens:
        chat = [*pair.prompt, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
        if not policy:
            return tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [first, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    return lambda pair: (tokens(pair, pair.chosen), tokens(pair, pair.rejected))


def with_padding(found: Agreement, model: nn.Module, pad_id: int, pairs: Sequence[Pair], reading: Reading) -> Agreement:
    """Add what padding on the left does to the rewards: a model that counts positions from the left minds it."""
    sequences = [tokens for pair in pairs for tokens in reading(pair)]
    with evaluation_mode(model), torch.inference_mode():
        alone = torch.cat([_rewards(model, [tokens], pad_id) for tokens in sequences])
        padded = _rewards(model, sequences, pad_id)
    return replace(found, padding=float((alone - padded).abs().max() / alone.std().clamp_min(1e-12)))


def _rewards(model: nn.Module, sequences: Sequence[Tokens], pad_id: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    rows = [[pad_id] * (longest - len(tokens)) + tokens for tokens in sequences]
    mask = [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in sequences]
    return model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask)).logits[:, 0].float()
