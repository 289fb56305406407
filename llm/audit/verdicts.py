"""What of an audit a person must know before training, and what is reason enough not to begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..data.overview import Cases
from ..data.pairs import DataError
from .audit import SHARE_WHOLE, Audit
from .limits import AuditLimits


class Concern(NamedTuple):
    """Something that a model will see otherwise than it stands in the file.

    Attributes:
        subject: The count it is about, by its name in an audit; "suite_identical" is about those of a suite.
        title: What is wrong, without numbers.
        evidence: The numbers that say so.
        remedy: What to do.
    """

    subject: str
    title: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}: {self.remedy}"


# What is said of a count of pairs, and what to do; of the training file.
_COUNTS = {
    "prompt_absent": ("prompts are not read", "show nothing of what is asked", "{longer}"),
    "prompt_cut": ("prompts are cut", "show a part of their prompt", "{longer}"),
    "answers_cut": ("answers were cut", "have an answer that lost its end", "{longer}"),
    "token_identical": (
        "pairs cannot be told apart",
        "have two answers with the same tokens",
        "where they are cut {longer}; else use a tokenizer that sees what they differ in; they are left out",
    ),
    "special_token_text": (
        "texts read like special tokens",
        "hold text that reads like a special token",
        "see whether they were rendered by a chat template once already; it is read as text",
    ),
    "double_framing": (
        "pairs are rendered twice",
        "are rendered already, and get a second frame",
        "write their prompts as lists of messages",
    ),
    "system_lost": (
        "system turns are lost",
        "have a system turn that the chat template leaves out or refuses",
        "set system_turns to fold, or use a template that has system turns",
    ),
    "thoughts_lost": (
        "thoughts are lost",
        "have thoughts that the chat template leaves out",
        "use a template that keeps them, or take them out of the data",
    ),
    "tool_calls_lost": (
        "calls or definitions of tools are lost",
        "call tools or define them, which the chat template leaves out",
        "use a template that writes them",
    ),
    "duplicates": ("pairs stand twice", "stand there before", "keep one of each, or they weigh double"),
    "contradictions": (
        "labels contradict each other",
        "are labelled both ways",
        "leave both out: under a worst case such pairs draw the weight",
    ),
    "negative_margins": (
        "margins contradict the labels",
        "rate the rejected answer better",
        "exchange their answers, or leave them out",
    ),
}
_FATAL = {"prompt_absent": "most_unasked", "token_identical": "most_identical"}


def concerns(audit: Audit, limits: AuditLimits, *, reads: int | None = None) -> list[Concern]:
    """What is above the limits, the training file first, then its suites.

    Args:
        audit: What was found.
        limits: What is too much.
        reads: The most tokens that the model reads of a sequence; None: any number.
    """
    longer = _longer(audit, reads)
    found = [*_of_counts(audit, limits, longer), *_of_shares(audit, limits)]
    for suite, parts in audit.overlap.items():
        found += _of_suite(audit, suite, parts["pairs"]["exact"], parts["pairs"]["near"], limits, longer)
    return found


def check_learnable(audit: Audit, limits: AuditLimits, *, reads: int | None = None) -> None:
    """Refuse pairs that leave little to learn from; ``reads`` as of ``concerns``.

    Raises:
        DataError: More of them than the limits allow show no prompt, or cannot be told apart; the message names the
            setting that allows it.
    """
    longer = _longer(audit, reads)
    for subject, setting in _FATAL.items():
        count, share = _count(audit, subject), _share(audit, subject)
        if share > getattr(limits, setting):
            _, said, remedy = _COUNTS[subject]
            raise DataError(
                f"{count:,} of {audit.pairs.count:,} pairs {said} at max_length {audit.max_length}, so little is left "
                f"to learn from: {remedy.format(longer=longer)}; or train all the same with --{setting} 1."
            )


def _of_counts(audit: Audit, limits: AuditLimits, longer: str) -> Iterator[Concern]:
    absent = _share(audit, "prompt_absent") > limits.warn_share
    for subject, (title, said, remedy) in _COUNTS.items():
        if _share(audit, subject) <= limits.warn_share or (subject == "prompt_cut" and absent):
            continue
        evidence = f"{_count(audit, subject):,} of {audit.pairs.count:,} pairs {said}"
        yield Concern(subject, title, evidence, remedy.format(longer=longer))


def _of_shares(audit: Audit, limits: AuditLimits) -> Iterator[Concern]:
    if audit.unknown_token_share > limits.warn_share:
        yield Concern(
            "unknown_token_share",
            "the tokenizer does not know the texts",
            f"{audit.unknown_token_share:.1%} of the tokens stand for something unknown",
            "use a model whose tokenizer knows this language and these signs",
        )
    if audit.longer_wins > limits.warn_longer:
        yield Concern(
            "longer_wins",
            "length gives the label away",
            f"the chosen answer is the longer one in {audit.longer_wins:.0%} of the pairs",
            "balance the lengths, or a model need learn nothing else",
        )


def _of_suite(
    audit: Audit, suite: str, exact: Cases, near: Cases, limits: AuditLimits, longer: str
) -> Iterator[Concern]:
    identical = audit.suites[suite]
    of = max(identical.pairs, 1)
    if exact.count or near.count > _NEARLY_ALL * of:
        nearly = f" and {near.count:,} more nearly so" if near.count else ""
        yield Concern(
            "overlap",
            f"the suite {suite} holds training pairs",
            f"{exact.count:,} of {of:,} pairs of the suite {suite} are among the training pairs{nearly}",
            "take them out of one of the two: what was learned by heart is no test",
        )
    if identical.cases.count > limits.warn_share * of:
        groups = ", ".join(f"{name} {count:,} of {all_of:,}" for name, (count, all_of) in _most(identical.by_category))
        yield Concern(
            "suite_identical",
            f"pairs of the suite {suite} cannot be told apart",
            f"{identical.cases.count:,} of {of:,} pairs of the suite {suite} have two answers with the same tokens "
            f"({groups})",
            f"where they are cut {longer}; they are not judged",
        )


_NEARLY_ALL = 0.5  # of a suite that is in training but for small changes; sentences from one mould are less alike


def _most(groups: Mapping[str, tuple[int, int]]) -> Sequence[tuple[str, tuple[int, int]]]:
    return list(groups.items())[:3]


def _count(audit: Audit, subject: str) -> int:
    found = getattr(audit, subject)
    return found.count if isinstance(found, Cases) else found.cases.count


def _share(audit: Audit, subject: str) -> float:
    return _count(audit, subject) / max(audit.pairs.count, 1)


def _longer(audit: Audit, reads: int | None) -> str:
    """What to do about texts that are cut, as far as the model reads."""
    asked = audit.length if audit.length is not None and audit.length > audit.max_length else None
    whole = f" (at {asked:,}, {SHARE_WHOLE:.0%} of the prompts are whole)" if asked else ""
    if reads is None or max(asked or 0, audit.max_length + 1) <= reads:
        return f"raise max_length{whole}"
    raised = f"raise max_length to {reads:,}, or " if audit.max_length < reads else ""
    remedy = f"{raised}leave them out (--too_long drop), or take one that reads more"
    return f"this model reads {reads:,} tokens: {remedy}{whole}"
