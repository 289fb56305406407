"""How far a model prefers the chosen answer of each pair."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dro_core.command_line.pace import paced

from ..data.pairs import Pair
from ..models.logprobs import answer_logps, answer_tokens, evaluation_mode, vocabulary_of
from ..text.batches import PairCollator, longest_first
from ..text.encoding import EncodedPairs, NothingLeft, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_PAIRS = 32
_LOGITS = 2**29
Margins: TypeAlias = NDArray[np.float64]
MarginOf = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def reward_margins(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """r(chosen) - r(rejected) of a sequence classifier, shape ``(n,)``."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    chosen, rejected = output.logits[:, 0].float().chunk(2)
    return chosen - rejected


def likelihood_margins(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Differences log pi(chosen) - log pi(rejected) of a policy, summed over the tokens of the answers, ``(n,)``.

    A sum favours the shorter answer: every token costs something. No reference is asked.
    """
    return dpo_margins(answer_logps(model, batch), beta=1.0)


def mean_likelihood_margins(*, beta: float) -> MarginOf:
    """Differences of beta log pi(answer) per token of the answer; no reference is asked."""

    def margin_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return dpo_margins(answer_logps(model, batch), beta=beta, tokens=answer_tokens(batch))

    return margin_of


def policy_margins(reference: nn.Module, *, beta: float, per_token: bool = False) -> MarginOf:
    """Differences of the implicit rewards beta log pi/pi_ref of a policy against ``reference`` [R23].

    What the reference says of a batch is kept, so that judging another policy on the same pairs costs it nothing.
    ``per_token`` divides every log-ratio by the number of tokens of its answer.
    """
    reference.eval()
    known: dict[bytes, Tensor] = {}

    def margin_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        ids, tokens = batch["input_ids"], answer_tokens(batch) if per_token else None
        key = hashlib.blake2b(ids.cpu().numpy().tobytes(), digest_size=16).digest()
        if key not in known:
            known[key] = answer_logps(reference.to(ids.device), batch).cpu()
        return dpo_margins(answer_logps(model, batch), known[key].to(ids.device), beta=beta, tokens=tokens)

    return margin_of


def pairs_at_once(model: nn.Module, length: int) -> int:
    """Pairs per forward pass where nobody says: 32, of a language model no more than give 2 GiB of float32 logits."""
    vocabulary = vocabulary_of(model)
    return min(_PAIRS, max(1, _LOGITS // (2 * length * vocabulary))) if vocabulary else _PAIRS


def score_pairs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    max_length: int,
    batch_size: int = 32,
    margin_of: MarginOf = reward_margins,
    progress: bool = False,
) -> Margins:
    """Margins of every pair: r(chosen) - r(rejected) of a reward model, by default.

    Pairs that the model cannot tell apart, because its tokenizer or ``max_length`` make one sequence of both answers,
    or that its chat template does not write, are not judged: their margin is nan, and nothing else's is.

    Pairs of similar length share a batch, so little is spent on padding; the order of the result is that of
    ``pairs``. Runs in evaluation mode, without gradients, on the device of the model, and leaves the
    model in the mode it was found in.

    Args:
        model: A sequence classifier of transformers with one output, or what ``margin_of`` takes.
        tokenizer: The tokenizer that belongs to it.
        pairs: n preference pairs.
        max_length: Token limit of prompt and answer together.
        batch_size: Pairs per forward pass, so twice as many sequences.
        margin_of: From the model and a batch to its margins.
        progress: Show a progress bar on the terminal.

    Returns:
        float64 margins of shape (n,); nan where a pair is not judged.

    Raises:
        FloatingPointError: If a margin is nan or infinite; names the pairs.
    """
    margins = np.full(len(pairs), np.nan)
    if not len(pairs):
        return margins
    try:
        encoded = encode_pairs(pairs, tokenizer, max_length=max_length, progress=progress)
    except NothingLeft as reason:
        _log.warning("nothing is judged: %s", reason)
        return margins
    margins[encoded.kept] = score_encoded(
        model, tokenizer, encoded, max_length=max_length, batch_size=batch_size, margin_of=margin_of, progress=progress
    )
    return margins


def score_encoded(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedPairs,
    *,
    max_length: int,
    batch_size: int = 32,
    margin_of: MarginOf = reward_margins,
    progress: bool = False,
) -> Margins:
    """Margins of encoded pairs, in their order; otherwise as :func:`score_pairs`."""
    margins = np.zeros(len(encoded))
    collate = PairCollator(tokenizer, max_length=max_length)
    rows = [encoded[row] for row in range(len(encoded))]
    order = longest_first(rows)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with evaluation_mode(model), torch.inference_mode():
        for batch in paced(batches, "batches scored", shown=progress):
            margins[batch] = _batch_margins(model, collate([rows[row] for row in batch]), margin_of)
    broken = ~np.isfinite(margins)
    if broken.any():
        raise _broken(encoded.pairs, broken, FloatingPointError)
    return margins


def _batch_margins(model: nn.Module, batch: Mapping[str, Tensor], margin_of: MarginOf) -> Margins:
    device = next(model.parameters()).device
    return margin_of(model, {name: tensor.to(device) for name, tensor in batch.items()}).double().cpu().numpy()


def checked_margins(pairs: Sequence[Pair], margins: ArrayLike) -> Margins:
    """The margins as float64 of shape (n,), nan where a pair was not judged.

    Raises:
        ValueError: The shape is another, or a margin is infinite; names the pairs.
    """
    scores = np.asarray(margins, dtype=np.float64)
    if scores.shape != (len(pairs),):
        raise ValueError(f"One margin per pair is needed: got shape {scores.shape} for {len(pairs)} pairs.")
    if np.isinf(scores).any():
        raise _broken(pairs, np.isinf(scores), ValueError)
    return scores


def _broken(pairs: Sequence[Pair], broken: NDArray[np.bool_], error: type[Exception]) -> Exception:
    rows = np.flatnonzero(broken)
    names = ", ".join(pairs[row].id for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    return error(f"{len(rows)} of {len(pairs)} margins are nan or infinite (pairs {names}): check the model.")


def dpo_margins(
    policy: Tensor, reference: Tensor | None = None, *, beta: float, tokens: Tensor | None = None
) -> Tensor:
    """Difference of the implicit rewards of the two answers of each pair, ``(n,)`` [R23].

        h_i = beta [log pi/pi_ref (y_i+ | x_i) - log pi/pi_ref (y_i- | x_i)]

    Args:
        policy: Log-probabilities of the answers under the policy in nats, shape ``(2 n,)``: n chosen, n rejected.
        reference: The same under the reference policy; None leaves pi_ref out.
        beta: Strength of the KL regularisation.
        tokens: Of every answer, by which its log-ratio is divided, ``(2 n,)``; None leaves sums.

    >>> import torch
    >>> dpo_margins(torch.tensor([-4.0, -7.0]), torch.tensor([-5.0, -6.0]), beta=0.1)
    tensor([0.2000])
    """
    chosen, rejected = _log_ratios(policy, reference, tokens).chunk(2)
    return beta * (chosen - rejected)


def answer_scores(
    policy: Tensor, reference: Tensor | None = None, *, beta: float, tokens: Tensor | None = None
) -> Tensor:
    """The implicit rewards themselves, ``(n, 2)``, chosen answers first. Arguments: see ``dpo_margins``."""
    return beta * torch.stack(_log_ratios(policy, reference, tokens).chunk(2), dim=1)


def _log_ratios(policy: Tensor, reference: Tensor | None, tokens: Tensor | None) -> Tensor:
    ratios = policy if reference is None else policy - reference
    return ratios if tokens is None else ratios / tokens
