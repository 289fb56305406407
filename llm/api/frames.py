"""Values that show themselves: a table of pandas, and the same in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..run.escaping import visible
from ..run.files import JsonObject

if TYPE_CHECKING:
    import pandas as pd


def frame(rows: Iterable[JsonObject]) -> pd.DataFrame:
    """A ``pandas.DataFrame``, one row each."""
    import pandas as pd

    return pd.DataFrame(list(rows))


class Shown(ABC):
    """A value with a ``table``, which a notebook shows."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers as a ``pandas.DataFrame``."""

    def caption(self) -> str:
        """One sentence about the table."""
        return ""

    def _repr_html_(self) -> str:
        from markupsafe import escape

        shown = visible(self.table.to_html(index=False, float_format="{:.4g}".format, na_rep="", border=0))
        return f"<p>{escape(visible(self.caption()))}</p>{shown}" if self.caption() else shown

    def __repr__(self) -> str:
        text = visible(self.table.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
        return f"{visible(self.caption())}\n{text}" if self.caption() else text
