"""Sets and rules as text: the grammar of ``dro_core.spec`` with the names that this room adds."""

from __future__ import annotations

from contextlib import suppress

from dro_core.spec import Form, read, set_forms

from .radius.auto import FORM, Auto, in_share
from .rules import Reweighting


def parse_reweighting(spec: str) -> Reweighting | None:
    """Read a set, as ``dro_core.parse_ambiguity`` does, or a rule; None is ``erm``.

    Rules: ``dr_dpo:1``, ``kldpo:1`` (weights prop. to exp(l/t), 2502.01930), ``gr_dpo:0.1,by=source``, those to compare
    with (``random:0.4``, ``hardest:0.1,factor=4``, ``focal:2``, ``shuffled:SET[,within=COLUMN]``, ``micro:8:SET``,
    ``balanced:by=COLUMN``, ``permuted_groups:SET``), those of prompts (``wasserstein:0.1``, ``mmd:0.2``) and
    ``regret:SET``, which sees losses less the least that soft labels allow; those of prompts by their pass rates
    (``maxrl``, ``rs_grpo:2``, all of ``llm.adversary.weightings``), and what else a set may see of prompts
    (``running:0.9:SET``, ``shrunk:4:SET``, ``pooled:SET,by=COLUMN``). A SET is anything that can be read, rules
    included.

    ``tv:auto=0.5`` takes that share of the radius that the pairs bear (``llm.adversary.radius``) in place of a number.

    Raises:
        ValueError: As ``dro_core.parse_ambiguity``.

    >>> parse_reweighting("kldpo:0.5"), parse_reweighting("dr_dpo:2"), parse_reweighting("erm")
    (KLPenalty(temperature=0.5), DrDPO(temperature=2.0), None)
    >>> str(parse_reweighting("micro:8:tv:0.2, by = source"))
    'micro:8:tv:0.2,by=source'
    """
    measured, sets = in_share(spec), set_forms()
    if measured is None:
        with suppress(ValueError):  # a rule, or a mistake: errors name all that is known
            return read(spec, sets, "ambiguity")
    from .rule_forms import RULES

    forms: dict[str, Form[Reweighting | None]] = {**sets, **RULES}
    if measured is None:
        return read(spec, forms, "ambiguity")
    try:
        return read(measured, {**forms, Auto.spec: FORM}, "ambiguity")
    except ValueError as error:
        raise ValueError(str(error).replace(repr(measured), repr(spec))) from None
