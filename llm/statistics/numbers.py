"""Numbers for people: percent, intervals, p-values, with one sign for what does not exist."""

from __future__ import annotations

MISSING = "\N{EN DASH}"  # where a number does not exist


def percent(value: float | None, *, sign: str = "-") -> str:
    """A share as a number of percent with one decimal; an en dash where there is none.

    >>> percent(0.7132), percent(0.05, sign="+"), percent(None) == MISSING
    ('71.3', '+5.0', True)
    """
    return MISSING if value is None else f"{round(100 * value, 1) + 0.0:{sign}.1f}".replace("-", "\N{MINUS SIGN}")


def bracket(low: float | None, high: float | None, *, sign: str = "-") -> str:
    """An interval in percent.

    >>> bracket(0.685, 0.741)
    '[68.5, 74.1]'
    """
    return MISSING if low is None or high is None else f"[{percent(low, sign=sign)}, {percent(high, sign=sign)}]"


def decimals(value: float | None) -> str:
    """Three decimals; an en dash where there is no number.

    >>> decimals(0.69315), decimals(-0.0001)
    ('0.693', '0.000')
    """
    return MISSING if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "\N{MINUS SIGN}")


def p_text(p: float | None) -> str:
    """A p-value for a table.

    >>> p_text(0.04), p_text(1e-9)
    ('0.040', '< 0.001')
    """
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
