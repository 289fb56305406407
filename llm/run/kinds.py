"""The kinds of training: one line each, and what records, cards and commands call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of training.

    Attributes:
        name: What commands, recipes and ``run.json`` call it; ``llm.kinds`` has a file of that name.
        result: What comes out of it, as the title of a card.
        results: Several of them, within a sentence.
        earlier: What ``run.json`` called it before it held the name.
        trained: The result with the way it was trained, within a sentence.
        pipeline: The task in the header of a card.
        tag: The tag there.
        text: The first sentence of the card.
        settings: Where the class of its settings is, in ``llm``.
    """

    name: str
    result: str
    results: str
    earlier: str
    trained: str
    pipeline: str
    tag: str
    text: str
    settings: str


_KINDS = (
    Kind(
        name="sft",
        result="Imitating policy",
        results="imitating policies",
        earlier="Imitating policy",
        trained="imitating policy",
        pipeline="text-generation",
        tag="sft",
        text="A language model fine-tuned on the chosen answers of preference pairs (loss of an example: the mean over "
        "its tokens; pairs are ranked by log-probabilities summed over tokens), with robust-rlhf",
        settings="training.config:SFTConfig",
    ),
    Kind(
        name="reward",
        result="Reward model",
        results="reward models",
        earlier="Reward model",
        trained="reward model",
        pipeline="text-classification",
        tag="reward-model",
        text="One output, the reward of an answer to a prompt; trained on preference pairs with robust-rlhf",
        settings="training.config:RewardConfig",
    ),
    Kind(
        name="dpo",
        result="Policy",
        results="DPO policies",
        earlier="Policy",
        trained="policy trained by DPO",
        pipeline="text-generation",
        tag="dpo",
        text="A language model trained on preference pairs by direct preference optimisation, with robust-rlhf",
        settings="training.config:DPOConfig",
    ),
    Kind(
        name="policy",
        result="Policy",
        results="policies",
        earlier="Policy by reinforcement",
        trained="policy trained on its own answers",
        pipeline="text-generation",
        tag="rlhf",
        text="A language model trained on the scores of its own answers with robust-rlhf.",
        settings="policy.config:PolicyConfig",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}


def kind_of(recorded: object) -> Kind | None:
    """The kind that a ``run.json`` of any version names; None for another one.

    >>> kind_of("dpo") is kind_of("Policy"), kind_of("Policy by reinforcement").name, kind_of(7)
    (True, 'policy', None)
    """
    return next((kind for kind in _KINDS if recorded in (kind.name, kind.earlier)), None)


def is_logistic(recorded: object, config: Mapping[str, object]) -> bool:
    """Whether the losses of such a run are -log sigmoid(margin), so that margins can be told from them.

    Losses of soft labels are not.

    >>> is_logistic("reward", {}), is_logistic("dpo", {"loss": "ipo"}), is_logistic("sft", {})
    (True, False, False)
    """
    kind = kind_of(recorded)
    certain = config.get("soft_labels", "none") == "none"
    return (
        certain
        and kind is not None
        and (kind.name == "reward" or (kind.name == "dpo" and config.get("loss") in ("sigmoid", "sigmoid_norm")))
    )


def has_reference(loss: str) -> bool:
    """Whether a loss of DPO, as text, compares the policy with a reference.

    >>> has_reference("sigmoid"), has_reference("simpo:0.5")
    (True, False)
    """
    return loss.partition(":")[0].strip() not in ("simpo", "orpo")
