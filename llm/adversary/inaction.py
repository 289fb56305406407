"""Did the adversary act? Refused before the start where it cannot, and said afterwards where it did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dro_core import AmbiguitySet, Minibatch

from ..data.grouping.named import NamedGroups, unknown
from ..run.files import JsonObject
from .ledger import VERDICT, AdversaryLedger
from .radius.auto import auto_of
from .rules import Reweighting, Rule, Shifted, layers, names_in
from .schedule import RadiusSchedule
from .spec import parse_reweighting

_NO_NAME = {"", "unknown", "None"}  # what readers fill in where a record names no source
_ALONE = 0.25  # share of the batches
RAISE_BATCH = "raise per_device_train_batch_size or gradient_accumulation_steps"


def bound(
    rule: Reweighting | None,
    columns: Mapping[str, Sequence[object]],
    *,
    batch: int,
    remedy: str = RAISE_BATCH,
    seed: int = 0,
    measures: bool = False,
) -> Reweighting | None:
    """The rule with its columns filled in; None stays None.

    Args:
        rule: A set or a rule, its groups named or numbered.
        columns: One entry per training example each; groups may be bins and products of them (``data.grouping``).
        batch: How many examples (of a policy: prompts) are weighed together.
        remedy: What makes that number larger.
        seed: Of the run, by which the labels of ``permuted_groups`` are dealt.
        measures: Whether the trainer can measure the radius of a set like ``tv:auto=0.5``.

    Raises:
        ValueError: An unknown column, a radius that nothing here measures, or the adversary could never move a weight:
            it sees one example at a time, or weighs groups of which there is one. Or a set that stands for batches
            larger than the batch.
    """
    if rule is None:
        return None
    if auto_of(rule) is not None and not measures:
        raise ValueError(
            f"{rule} takes its radius from pairs that are held out of the training of a reward model or of DPO, which "
            "this kind of training does not have: give the set a number"
        )
    batch = batch if isinstance(rule, AmbiguitySet) else _weighed_together(rule, batch)
    groups = NamedGroups(columns, seed=seed)
    for name in names_in(rule):
        if lacking := unknown(name, columns):
            raise ValueError(f"{rule} names the column {lacking[0]!r}; the columns are: {', '.join(sorted(columns))}.")
    for part in layers(rule):
        _check_groups(rule, part, groups)
        if isinstance(part, Minibatch) and part.draws > batch:
            raise ValueError(
                f"{rule} stands for batches of {part.draws}, and the adversary weighs {batch} examples together: "
                f"{remedy}, or give minibatch at most {batch}"
            )
    if batch < 2:
        raise ValueError(
            f"{rule} reweights the examples of an effective batch, and a batch of {batch} leaves the adversary nothing "
            f"to choose: {remedy}, or train plainly (ambiguity erm)"
        )
    return rule.bind(groups)


def concerns(asked: Reweighting | None, rule: Reweighting | None, *, batch: int) -> Iterator[str]:
    """What groups leave undone without being wrong, one sentence each.

    Args:
        asked: The set or rule as it was asked for, its groups named.
        rule: The same, bound to the training examples.
        batch: How many examples are weighed together.
    """
    for named, part in zip(layers(asked), layers(rule), strict=True):
        codes, name = getattr(part, "groups", None), getattr(named, "groups", None)
        if codes is None:
            continue
        sizes = np.unique(np.asarray(codes), return_counts=True)[1]
        column = f"the column {name}" if isinstance(name, str) else "the groups given"
        if sizes.max() == 1:
            yield f"{column}: every group is one example, so {asked} weighs single examples, as it does without by="
        elif single := int((sizes == 1).sum()):
            yield f"{column}: {single} of {len(sizes)} groups are one example, whose loss is the mean of its group"
        if (alone := float(((sizes / sizes.sum()) ** batch).sum())) > _ALONE:
            yield (
                f"{column}: about {alone:.0%} of the batches of {batch} hold one group alone, and there {asked} has "
                "nothing to weigh: raise the batch, or name a column with groups of more equal sizes"
            )


def check_reached(rule: Reweighting | None, schedule: RadiusSchedule, steps: int) -> None:
    """Refuse a schedule that leaves no step to the adversary.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if rule is not None and steps > 0 and schedule(steps - 1, steps) == 0.0:
        raise ValueError(
            f"plain_share {schedule.plain_share:g} leaves the adversary no step of {steps}: lower it, take more steps, "
            "or train plainly (ambiguity erm)"
        )


def check_losses(
    rule: Reweighting | None, *, logistic: bool, labels: bool = False, values: bool = False, charged: bool = False
) -> None:
    """Refuse a rule that reads something out of losses that do not hold it.

    Args:
        rule: The set or rule.
        logistic: Whether losses are -log sigmoid(margin).
        labels: Whether losses are those of labels, which may be uncertain.
        values: Whether losses are the negative values of prompts, each a mean over answers.
        charged: Whether more than a score is in those values.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if rule is None or isinstance(rule, AmbiguitySet):  # which ask nothing of losses
        return
    from .comparisons import Focal
    from .regret import Regret
    from .weightings.estimates import Estimate
    from .weightings.rule import Weighting

    if not logistic and any(isinstance(part, Focal) for part in layers(rule)):
        raise ValueError(
            f"{rule} weighs by the probability 1 - exp(-loss) of a mistake, and the losses here are not -log "
            "sigmoid(margin) of certain labels: train a reward model or DPO with the sigmoid loss and soft_labels "
            "none, or choose a set or another rule"
        )
    if not labels and any(isinstance(part, Regret) for part in layers(rule)):
        raise ValueError(
            f"{rule} looks at losses beyond the least that uncertain labels allow, and the losses here are not of "
            "labels: train a reward model or DPO, or leave regret: out"
        )
    of_prompts = next((part for part in layers(rule) if isinstance(part, Weighting | Estimate)), None)
    if of_prompts is not None and not values:
        raise ValueError(
            f"{rule} looks at the mean score of the answers to a prompt, and the losses here are not of prompts: train "
            "a policy, or choose a set or another rule"
        )
    if isinstance(of_prompts, Weighting) and charged:
        raise ValueError(
            f"{rule} weighs prompts by their share of right answers, and the values here hold a charge beside the "
            "score: set adversary_sees to score (or kl_coefficient to 0) and missing_end_penalty to 0, or choose a set"
        )


def inaction(asked: Reweighting | str | None, ledger: AdversaryLedger) -> str | None:
    """The verdict on a run whose weights were equal at every step, with the reason as far as it is known.

    Args:
        asked: The set or rule, or its text; None and erm have no adversary.
        ledger: The account of the finished run.

    Returns:
        One sentence, or None where the adversary acted or there is none.
    """
    rule = parse_reweighting(asked) if isinstance(asked, str) else asked
    if rule is None or ledger.acted:
        return None
    if isinstance(rule, AmbiguitySet) and rule.holds_only_reference:
        reason = f"{rule} holds nothing but equal weights"
    elif not ledger.looks and auto_of(rule) is not None:
        reason = "the pairs that its radius is measured on never showed that anything was learned"
    elif not ledger.looks:
        reason = "the schedule of the radius left it no step"
    else:
        reason = (
            "the weights were equal whenever it was asked, because losses were equal to within rounding, a batch held "
            "one group alone, or the radius is too small to move any"
        )
    return f"{VERDICT}: {reason}"


def verdict_of(spec: str, ledger: AdversaryLedger) -> JsonObject:
    """The entries of ``run.json``: ``acted`` (None without an adversary) and ``inaction``, the verdict or None."""
    return {"acted": None if spec == "erm" else ledger.acted, "inaction": inaction(spec, ledger)}


def _weighed_together(rule: Rule, batch: int) -> int:
    """How many examples of a batch a rule weighs together, after a look at where its radius comes from."""
    from .comparisons import PerMicroBatch
    from .group_controls import PermutedGroups

    if auto_of(rule) is not None and any(isinstance(part, Shifted | PermutedGroups) for part in layers(rule)):
        raise ValueError(
            f"{rule} takes its radius from margins of labels as they are and groups as they are, which is not what it "
            "weighs by: give the set inside it a number"
        )
    return min([batch, *(part.size for part in layers(rule) if isinstance(part, PerMicroBatch))])


def _check_groups(rule: Reweighting, part: object, columns: NamedGroups) -> None:
    groups = getattr(part, "groups", None)
    named = isinstance(groups, str)
    if groups is None:
        return
    labels = np.unique(np.asarray(columns[groups] if named else groups, dtype=str if named else None))
    if len(labels) > 1:
        return
    column, remedy = groups if named else "given", "or weigh single examples (no by=)"
    if not set(labels.tolist()) - _NO_NAME:
        raise ValueError(
            f"{rule} weighs the groups of the column {column}, which the training data do not have: add a {column} to "
            f"every record, {remedy}"
        )
    raise ValueError(
        f"{rule} weighs the groups of the column {column}, and all training examples are of one ({labels[0]}): add "
        f"data of another {column}, name another column, {remedy}"
    )
