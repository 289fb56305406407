"""What certified verdicts rest on, claim by claim, in the language of `proofs_check/verifier.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proofs_check.formulas.collapse import COLLAPSE
from proofs_check.formulas.control import CONTROL
from proofs_check.formulas.groups import GROUPS
from proofs_check.formulas.inner import INNER
from proofs_check.formulas.losses import LOSSES
from proofs_check.formulas.minibatch import MINIBATCH
from proofs_check.formulas.objectives import OBJECTIVES
from proofs_check.formulas.others import OTHERS
from proofs_check.formulas.verifiable import VERIFIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proofs_check.claim import Formula

FORMULAS: Mapping[str, Formula] = {
    **INNER,
    **MINIBATCH,
    **OBJECTIVES,
    **LOSSES,
    **OTHERS,
    **COLLAPSE,
    **CONTROL,
    **VERIFIABLE,
    **GROUPS,
}
