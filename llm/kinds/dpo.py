"""Direct preference optimisation, and what goes by its name, against the worst reweighting of each effective batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..adversary.equal_losses import Accuracy, precision_of
from ..adversary.radius.auto import auto_of
from ..data.pairs import Pair
from ..judging.margins import (
    MarginOf,
    answer_scores,
    dpo_margins,
    mean_likelihood_margins,
    policy_margins,
)
from ..models.architectures import on_meta
from ..models.loading import load_policy, tiny_policy
from ..models.logprobs import answer_logps, answer_tokens, evaluation_mode
from ..models.saving import save_model
from ..models.settings import Loading
from ..models.tokenizers import check_vocabulary
from ..run.folder import write_folder
from ..text.encoding import EncodedPairs
from ..training.config import DPOConfig
from ..training.losses import GradientPenalised, PairLoss, dpo_accuracy, margins_in
from ..training.objectives.table import parse_pair_loss
from ..training.pair_trainer import PairTrainer, texts_of
from ..training.processes import on_main_process
from ..training.run import Task
from .reference import put_reference

if TYPE_CHECKING:
    from ..text.batches import PairCollator

REFERENCE = "reference"  # the folder of a run that keeps a policy it made from scratch


class DPOTrainer(PairTrainer):
    """``RobustTrainer`` with a loss of the scores beta log pi/pi_ref of both answers, or of their difference [R23].

    What a loss needs (a reference, sums or means over tokens) it says itself. The reference is, in this order: the
    log-probabilities that batches carry (``EncodedPairs.put_reference``), the model ``reference``, or the policy with
    its adapter switched off. It is evaluated once per effective batch, also where the trainer makes two passes.

    Args:
        beta: Strength of the KL regularisation.
        pair_loss: Loss of one pair as a function of its margin or scores (``llm.training.objectives.table``).
        reference: A second model, or None.
        **kwargs: Everything ``RobustTrainer`` takes.

    Raises:
        ValueError: There is no reference, or one that the loss does not need, or a second model under FSDP or
            DeepSpeed; a set that takes its radius from margins under a loss of scores.
    """

    def __init__(self, *, beta: float, pair_loss: PairLoss, reference: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta, self.pair_loss, self.reference = beta, pair_loss, None
        if reference is not None and not pair_loss.reference:
            raise ValueError(f"{pair_loss} needs no reference policy: leave reference out")
        if pair_loss.of_scores and (auto := auto_of(self.ambiguity)) is not None:
            raise ValueError(
                f"{auto} takes its radius from margins, of which {pair_loss} is no function: give a number"
            )
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if sharded and isinstance(pair_loss, GradientPenalised):
            raise ValueError("wdpo reads the embeddings outside the sharded model: use another loss, or DDP")
        if self.args.activation_checkpointing and isinstance(pair_loss, GradientPenalised):
            raise ValueError("wdpo differentiates twice, and checkpointed activations do not: switch them off")
        if self.args.torch_compile and isinstance(pair_loss, GradientPenalised):
            raise ValueError("wdpo differentiates twice, and compiled models only once: leave torch_compile out")
        if sharded and reference is not None:
            raise ValueError("a second reference model is not sharded here: use reference=precomputed or adapter")
        if reference is not None:
            outline = on_meta(reference)
            self.reference = reference if outline else self.accelerator.prepare_model(reference, evaluation_mode=True)

    @cached_property
    def accuracy(self) -> Accuracy:
        """Losses are known as well as the log-ratios of the longest answers, which are differences of long sums."""
        data: Any = self.train_dataset
        tokens = max(end - first for item in data for first, end in (item["chosen_span"], item["rejected_span"]))
        return dpo_accuracy(
            super().accuracy,
            self.pair_loss,
            beta=self.beta,
            precision=precision_of(self.args, self.model),
            tokens=tokens,
        )

    def read_flat(self) -> None:
        """As of every trainer of pairs; a gradient penalty reads the embeddings of padded batches.

        Raises:
            ValueError: See ``PairTrainer``.
        """
        if isinstance(self.pair_loss, GradientPenalised):
            raise ValueError("wdpo reads the embeddings of padded batches: leave padding_free out")
        super().read_flat()

    def margins(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Differences of the implicit rewards, shape ``(n,)``."""
        return margins_in(self.held_out(model, inputs))

    def held_out(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What the loss reads of every pair: its margin ``(n,)``, or the scores of its answers ``(n, 2)``."""
        inputs = self.with_constants(model, inputs)
        read = answer_scores if self.pair_loss.of_scores else dpo_margins
        tokens = answer_tokens(inputs) if self.pair_loss.per_token else None
        reference = inputs["reference"] if self.pair_loss.reference else None
        return read(self._logps(model, inputs), reference, beta=self.beta, tokens=tokens)

    def _logps(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Of the policy, with its adapter or without; a second model reads padded batches."""
        return (self.read_by() if self.flat else answer_logps)(model, inputs)

    def with_constants(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the reference log-probabilities ``(2 n,)`` in it, where the loss needs them."""
        if "reference" in inputs or not self.pair_loss.reference:
            return inputs
        with torch.no_grad(), self._reference_of(model) as reference, evaluation_mode(reference):
            read = answer_logps if reference is self.reference else self._logps
            return {**inputs, "reference": read(reference, inputs)}

    def constant_forwards(self, inputs: dict[str, Tensor]) -> float:
        """One, of the reference; none where batches carry its log-probabilities, or there is none."""
        return 0.0 if "reference" in inputs or not self.pair_loss.reference else 1.0

    @contextmanager
    def _reference_of(self, model: nn.Module) -> Iterator[nn.Module]:
        if self.reference is not None:
            yield self.reference
            return
        policy = self.accelerator.unwrap_model(model)
        if not hasattr(policy, "disable_adapter"):
            raise ValueError("DPO needs a reference: pass one, train an adapter, or use EncodedPairs.put_reference")
        with policy.disable_adapter():  # pyright: ignore[reportCallIssue]
            yield model

    def example_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Loss of every pair, shape ``(n,)``, with the gradient penalty where the loss has one."""
        if isinstance(self.pair_loss, GradientPenalised) and self.pair_loss.penalty:
            return self._penalised(model, inputs, self.pair_loss.penalty)
        if self.pair_loss.of_scores:  # of which margins say nothing
            return self.losses_of(self.held_out(model, inputs), inputs)
        return super().example_losses(model, inputs)

    def _penalised(self, model: nn.Module, inputs: dict[str, Tensor], penalty: float) -> Tensor:
        """l_i + penalty ||grad of l_i in the embeddings of pair i||_2; pairs share nothing, so one pass gives all."""
        inputs, training = self.with_constants(model, inputs), torch.is_grad_enabled()
        embed = self.accelerator.unwrap_model(model).get_input_embeddings()  # pyright: ignore[reportCallIssue]
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if training else nullcontext():  # twice differentiable
            embeddings = embed(inputs["input_ids"])
            embeddings = embeddings if embeddings.requires_grad else embeddings.requires_grad_()
            logps = answer_logps(model, inputs, embeddings=embeddings)
            losses = self.losses_of(dpo_margins(logps, inputs["reference"], beta=self.beta), inputs)
            (slopes,) = torch.autograd.grad(losses.sum(), embeddings, create_graph=training)
            squares = slopes.float().flatten(1).square().sum(dim=1)
            chosen, rejected = squares.chunk(2)
            losses = losses + penalty * (chosen + rejected + 1e-20).sqrt()
        return losses if training else losses.detach()


class DPOTask(Task[DPOConfig]):
    """A causal model trained by DPO."""

    adapter_task = "CAUSAL_LM"
    second: PreTrainedModel | None = None  # a reference of its own
    start: PreTrainedModel | None = None  # a policy made from scratch, before it is trained

    def load(self, train: Sequence[Pair]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy to start from; ``tiny`` learns its tokenizer from the training pairs."""
        config = self.config
        if config.model == "tiny":
            model, tokenizer = tiny_policy(texts_of(train), **config.from_scratch())
            self.start = copy.deepcopy(model) if self.pair_loss.reference else None
        else:
            model, tokenizer = load_policy(config.model, **self.config.loading())
        if config.reference_kind() == "model" or config.reference_model:
            self.second = self._second(model, tokenizer)
        return model, tokenizer

    def trainer(self, **common: object) -> DPOTrainer:
        """The trainer of the run; precomputed log-probabilities come later, through the data."""
        online = self.config.reference_kind() == "model"
        return DPOTrainer(
            beta=self.config.beta, pair_loss=self.pair_loss, reference=self.second if online else None, **common
        )

    @property
    def pair_loss(self) -> PairLoss:
        """The loss of one pair."""
        return parse_pair_loss(self.config.loss, beta=self.config.beta)

    def margin_of(self, output: Path) -> MarginOf:
        """By the implicit rewards of its loss, against the reference, if there is one, which is loaded again."""
        loss, beta = self.pair_loss, self.config.beta
        if not loss.reference:
            return mean_likelihood_margins(beta=beta)
        name = self.config.reference_model or self.config.model
        start = str(output / REFERENCE) if name == "tiny" else name
        return _judge(start, beta, per_token=loss.per_token, **self.config.loading())

    def prepare(self, trainer: PairTrainer, arguments: TrainingArguments, output: Path) -> None:
        """Compute the reference log-probabilities, or read them; before the first step the policy is the reference."""
        if self.start is not None:  # it exists nowhere else
            on_main_process(lambda: self._keep_start(output / REFERENCE, trainer.processing_class))
        if self.config.reference_kind() != "precomputed":
            return
        cache = Path(self.config.reference_cache or output / "reference.npz")
        aside = trainer.slice.data if trainer.slice else None
        named = {"train": trainer.train_dataset, "eval": trainer.eval_dataset, "slice": aside}
        datasets = {name: pairs for name, pairs in named.items() if isinstance(pairs, EncodedPairs)}
        reference = self.second if self.second is not None else trainer.model
        collator = cast("PairCollator", trainer.data_collator)
        own = self.config.reference_cache is None
        put_reference(reference, datasets, collator, arguments, cache=cache, own=own)
        self.second = None  # its memory is free for training

    def _keep_start(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        start = self.start
        if start is not None and not folder.exists():
            write_folder(folder, lambda partial: save_model(partial, start, tokenizer))

    def _second(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The reference policy as a model of its own, frozen."""
        name = self.config.reference_model
        if name is None:
            return copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        second, its_tokenizer = load_policy(name, **self.config.loading())
        check_vocabulary(tokenizer, its_tokenizer)
        return second.requires_grad_(requires_grad=False).eval()


@lru_cache(maxsize=1)
def _judge(reference: str, beta: float, *, per_token: bool, **loading: Unpack[Loading]) -> MarginOf:
    """One for all runs of a sweep: the reference speaks once about every suite."""
    return policy_margins(load_policy(reference, **loading)[0], beta=beta, per_token=per_token)


TASK = DPOTask
