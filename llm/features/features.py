"""What a frozen backbone says of each prompt and answer, computed once and kept on disk.

The feature of an answer is the mean of the last hidden states over the tokens of prompt and answer together, as
``llm.text.encoding`` cuts them; that of a prompt is the mean over the prompt alone, as far as it fits, its end kept.
Of ``static:NAME`` the states are the model's embeddings of single tokens: no layer is computed, so it takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from dro_core.command_line.pace import Pace

from ..data.layouts.tools import beside_text, record_of
from ..data.pairs import DataError, Pair
from ..models.architectures import check_length
from ..models.fetching import cache_folder
from ..models.loading import load_reward_model, tiny_reward_model
from ..models.logprobs import evaluation_mode
from ..run.escaping import one_line
from ..text.batches import padded
from ..text.encoding import encode_pairs
from ..text.token_cache import tokenizer_text
from .parts import FeatureParts, Features, is_whole, write_features

STATIC = "static:"
"""Before the name of a model whose embeddings of tokens are meant, without the layers above them."""
_FORMAT = 2  # part of every fingerprint: raise it when features are computed in another way
_TOKENS = 8192  # of one forward pass, padding included
_PART = 2**18  # tokens, at least, that are written together: what an interruption costs at most
_NOT_KEPT = FeatureParts()


class PairFeatures(NamedTuple):
    """Features of both answers after their prompt, each ``(pairs, width)``."""

    chosen: Features
    rejected: Features


@dataclass(frozen=True)
class Backbone:
    """A frozen model that turns texts into vectors.

    Attributes:
        model: Without its head.
        tokenizer: The one that belongs to it.
        max_length: Tokens of prompt and answer together.
    """

    model: nn.Module
    tokenizer: Any
    max_length: int

    def fingerprint(self, pairs: Sequence[Pair]) -> str:
        """What the features of ``pairs`` depend on: weights, tokenizer, lengths and texts, as 32 hexadecimal digits."""
        digest = hashlib.sha256(f"{_FORMAT} {self.max_length} right".encode())  # where padding stands
        for name, tensor in sorted(self.model.state_dict().items()):
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy())
        digest.update(tokenizer_text(self.tokenizer).encode())
        for pair in pairs:
            asked = [[m["role"], m["content"], *filter(None, [beside_text(m)])] for m in pair.prompt]
            digest.update(json.dumps([asked, record_of(pair.chosen), record_of(pair.rejected)]).encode())
        return digest.hexdigest()[:32]


class StaticEmbeddings(nn.Module):
    """A model's embeddings of single tokens, as if they were its last hidden states."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding = embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        """States ``(sequences, tokens, width)`` of ids ``(sequences, tokens)``; the mask is for the mean."""
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


def load_backbone(name: str, *, max_length: int, train: Sequence[Pair] = (), dtype: str = "float32") -> Backbone:
    """A model by its name, without its head, in evaluation mode.

    Args:
        name: Alias, folder or hub name; after ``static:`` only the embeddings of its tokens, for sequences of any
            length. ``tiny`` is an untrained encoder with a tokenizer of the training pairs: it shows that the
            machinery works, not what language models know.
        max_length: Tokens of prompt and answer together.
        train: For ``tiny``.
        dtype: Precision the backbone computes in.

    Raises:
        ModelError: Nothing loadable under that name, or a model that reads fewer tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a head that is missing is drawn at random, and left aside
        if name == "tiny":
            texts = (text for pair in train for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected))
            model, tokenizer = tiny_reward_model(texts, max_length=max_length, dtype=dtype)
        else:
            model, tokenizer = load_reward_model(name.removeprefix(STATIC), dtype=dtype)
    if name.startswith(STATIC):
        base = StaticEmbeddings(model.get_input_embeddings())
    else:
        check_length(model, max_length)
        base = model.base_model
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return Backbone(base.to(device).eval(), tokenizer, max_length)


def pair_features(
    backbone: Backbone, pairs: Sequence[Pair], *, progress: str = "", parts: FeatureParts = _NOT_KEPT
) -> PairFeatures:
    """Features of the answers of ``pairs``; equal token sequences are computed once, and kept in ``parts`` meanwhile.

    Raises:
        DataError: A pair cannot be told apart, or read, by the backbone.
    """
    encoded = encode_pairs(pairs, backbone.tokenizer, max_length=backbone.max_length)
    if encoded.left_out:
        place, reason = next(iter(encoded.left_out.items()))
        raise DataError(
            f"{len(encoded.left_out)} of {len(pairs)} pairs have no features: of {pairs[place].id!r}, {reason}"
        )
    sequences = [tuple(item[side]) for side in ("chosen", "rejected") for item in encoded]
    return PairFeatures(*np.split(_unique_pooled(backbone, sequences, progress, parts), 2))


def prompt_features(
    backbone: Backbone, pairs: Sequence[Pair], *, progress: str = "", parts: FeatureParts = _NOT_KEPT
) -> Features:
    """Features of the prompts of ``pairs``, ``(pairs, width)``; equal ones once, and kept in ``parts`` meanwhile."""
    tokenizer = backbone.tokenizer
    side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    texts = ["\n".join(message["content"] for message in pair.prompt) for pair in pairs]
    try:
        encoded = tokenizer(texts, truncation=True, max_length=backbone.max_length, verbose=False)["input_ids"]
    finally:
        tokenizer.truncation_side = side
    sequences = [tuple(ids) or (tokenizer.pad_token_id,) for ids in encoded]
    return _unique_pooled(backbone, sequences, progress, parts)


@dataclass(frozen=True)
class FeatureCache:
    """Features kept on disk by fingerprint, each file a memory map, so that workers share it.

    Beside each lies its checksum: a file that was cut off or changed is made again. While one is made, its parts lie in
    a folder beside it, from which an interrupted computation goes on.

    Attributes:
        folder: Where; it grows and may be deleted at any time.
        progress: Whether to show a bar while features are computed.
        computes: False only names the files, for a look at what a sweep would do.
    """

    folder: Path
    progress: bool = False
    computes: bool = True

    def pairs(self, backbone: Backbone, pairs: Sequence[Pair], *, name: str) -> Path:
        """The file of the features of answers, chosen and rejected on its first axis; made where none is whole."""
        file = self.folder / f"{backbone.fingerprint(pairs)}-answers.npy"
        if self.computes and not is_whole(file):
            parts = self._parts(file)
            found = pair_features(backbone, pairs, progress=self._bar(f"{name}, answers"), parts=parts)
            write_features(file, np.stack(found))
            parts.clear()
        return file

    def prompts(self, backbone: Backbone, pairs: Sequence[Pair], *, name: str) -> Path:
        """The file of the features of prompts; made where none is whole."""
        file = self.folder / f"{backbone.fingerprint(pairs)}-prompts.npy"
        if self.computes and not is_whole(file):
            parts = self._parts(file)
            found = prompt_features(backbone, pairs, progress=self._bar(f"{name}, prompts"), parts=parts)
            write_features(file, found)
            parts.clear()
        return file

    def _bar(self, text: str) -> str:
        return text if self.progress else ""

    def _parts(self, file: Path) -> FeatureParts:
        return FeatureParts(file.with_suffix(f".parts-{_TOKENS}-{_PART}"), _PART)  # which rows are in which


def default_cache() -> Path:
    """Where features are kept if nothing else is said: beside the models that were fetched."""
    return cache_folder() / "features"


def _unique_pooled(
    backbone: Backbone, sequences: Sequence[tuple[int, ...]], progress: str, parts: FeatureParts
) -> Features:
    unique = list(dict.fromkeys(sequences))
    vectors = _pooled(backbone, unique, progress, parts)
    place = {sequence: row for row, sequence in enumerate(unique)}
    return vectors[[place[sequence] for sequence in sequences]]


def _pooled(backbone: Backbone, sequences: Sequence[tuple[int, ...]], progress: str, parts: FeatureParts) -> Features:
    """Mean last hidden states ``(sequences, width)``; parts that are on disk are read, the others are kept there."""
    from rich.markup import escape
    from rich.progress import Progress

    from ..run.terminal import Terminal

    lengths = np.array([len(sequence) for sequence in sequences])
    batches = list(_batches(lengths))
    sizes = [int(lengths[rows].sum()) for rows in batches]
    console = Terminal(stderr=True)
    shown = Progress(*Progress.get_default_columns(), console=console, transient=True, disable=not progress)
    logged = bool(progress) and not console.is_terminal
    pace = Pace(len(sequences), f"texts ({one_line(progress)})", console.print) if logged else None
    vectors: Features | None = None
    with evaluation_mode(backbone.model), torch.inference_mode(), shown:
        task = shown.add_task(escape(f"features: {one_line(progress)}"), total=sum(sizes))
        for file, part in parts.of(batches, sizes):
            rows = np.concatenate(part)
            if file is not None and is_whole(file):
                means = np.load(file)
                shown.advance(task, lengths[rows].sum())
            else:
                found: list[Features] = []
                for batch in part:
                    found.append(_means(backbone, [sequences[row] for row in batch]))
                    shown.advance(task, lengths[batch].sum())
                    if pace is not None:
                        pace.advance(len(batch))
                means = np.concatenate(found)
                if file is not None:
                    write_features(file, means)
            vectors = np.empty((len(sequences), means.shape[1]), np.float32) if vectors is None else vectors
            vectors[rows] = means
    assert vectors is not None
    return vectors


def _means(backbone: Backbone, sequences: Sequence[tuple[int, ...]]) -> Features:
    """Mean last hidden states of a batch, ``(sequences, width)``."""
    device = next(backbone.model.parameters()).device
    ids, mask = padded(sequences, backbone.tokenizer.pad_token_id)
    hidden = backbone.model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    return _masked_mean(hidden.float(), mask.to(device)).cpu().numpy()


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of similar length, longest first: what runs out of memory does so at once."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        size = max(_TOKENS // int(lengths[order[start]]), 1)
        yield order[start : start + size]
        start += size


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
