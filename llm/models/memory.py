"""What one process holds of a model in training, and what a checkpoint of it takes: by formula, nothing is measured."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class HeldBytes(NamedTuple):
    """Bytes on one process.

    Attributes:
        weights: Trained and frozen.
        gradients: Of the trained weights; under DDP once more in the buckets that are sent.
        optimizer: AdamW's two moments; under ZeRO with the float32 weights that it steps on.
    """

    weights: float
    gradients: float
    optimizer: float


class ModelSizes(NamedTuple):
    """Of the parameters of a model.

    Attributes:
        number: How many there are.
        trained: How many are trained.
        weights: Bytes of all, as they are loaded.
        moving: Bytes of those that are trained.
    """

    number: int
    trained: int
    weights: int
    moving: int


def sizes_of(model: nn.Module) -> ModelSizes:
    """Counted where they are, on the meta device too."""
    parts = list(model.parameters())
    trained = [part for part in parts if part.requires_grad]
    return ModelSizes(*(_count(some) for some in (parts, trained)), *(_bytes(some) for some in (parts, trained)))


def held(sizes: ModelSizes, ranks: int, *, mixed: bool) -> dict[str, HeldBytes]:
    """What each of so many processes holds, by the way in which they share the work.

    Args:
        sizes: Of the model, whole.
        ranks: How many processes there are.
        mixed: Whether bf16 or fp16 is on: FSDP2 then trains float32 weights, and ZeRO computes on weights of two bytes.
    """
    frozen, moving = sizes.weights - sizes.moving, sizes.moving
    spread = max(moving, 4 * sizes.trained) if mixed else moving
    read, gradients = (2 * sizes.number, 2 * sizes.trained) if mixed else (sizes.weights, moving)
    stepped = 12 * sizes.trained
    return {
        "single": HeldBytes(sizes.weights, moving, 2 * moving),
        "ddp": HeldBytes(sizes.weights, 2 * moving, 2 * moving),
        "zero2": HeldBytes(read, gradients / ranks, stepped / ranks),
        "fsdp2": HeldBytes((frozen + spread) / ranks, spread / ranks, 2 * spread / ranks),
        "zero3": HeldBytes(read / ranks, gradients / ranks, stepped / ranks),
    }


class Logits(NamedTuple):
    """What a causal model says of a batch.

    Attributes:
        sequences: That are read together; their float32 copies are taken one after the other.
        places: Tokens of each that the model is asked about.
        vocabulary: Logits of a place.
    """

    sequences: int
    places: int
    vocabulary: int

    def bytes(self, *, half: bool, trains: bool) -> int:
        """The most that is held at once of them, of what ``token_logps`` makes of them, and of the gradients of both.

        Counted, and measured on a CPU: logits with what is saved of them, and gradients before and after they are put
        together; beside these up to three more float32 copies of the sequence at hand.

        Args:
            half: Whether the model computes in two bytes; probabilities take four all the same.
            trains: Whether there is a way back.
        """
        one = self.places * self.vocabulary
        whole = self.sequences * one
        if not trains:
            return 2 * whole + 8 * one if half else 4 * whole + 4 * one
        return max(6 * whole + 4 * one, 4 * whole + 12 * one) if half else 8 * whole + 8 * one


def average_bytes(model: nn.Module) -> int:
    """Of a copy of all weights with at least four bytes each, as the average of iterates is kept."""
    return sum(_numel(part) * max(part.element_size(), 4) for part in model.parameters())


def checkpoint_bytes(sizes: ModelSizes, *, frozen_too: bool, spread: bool = False) -> int:
    """The weights that are trained, with ``frozen_too`` all, and AdamW's moments, in files that one process writes.

    ``spread``: by FSDP2 with bf16 or fp16 on, which trains float32 weights.
    """
    moving = max(sizes.moving, 4 * sizes.trained) if spread else sizes.moving
    return (sizes.weights - sizes.moving if frozen_too else 0) + 3 * moving


def _count(parts: list[nn.Parameter]) -> int:
    return sum(_numel(part) for part in parts)


def _bytes(parts: list[nn.Parameter]) -> int:
    return sum(_numel(part) * part.element_size() for part in parts)


def _numel(part: nn.Parameter) -> int:
    """Also of one that ZeRO-3 has spread, which is empty."""
    return getattr(part, "ds_numel", part.numel())
