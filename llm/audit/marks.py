"""Texts of the data that look like what chat templates write."""

from __future__ import annotations

import re

from ..data.layouts.base import Malformed
from ..data.layouts.markup import MARKUPS
from ..data.layouts.rendered import asked, unwrapped
from ..data.pairs import Pair
from ..text.rendering import Renderer

# Tokens of common chat formats; names of roles with a colon are ordinary text.
_KNOWN = {token.strip() for markup in MARKUPS for token in (markup.marker, *markup.ends, *markup.starts)}
_SPECIAL = re.compile("|".join(re.escape(token) for token in sorted(_KNOWN) if token[:1] in ("<", "[")))


def special(pair: Pair, renderer: Renderer) -> bool:
    """Whether a text of a pair reads like a special token, of this tokenizer or of a common chat format."""
    texts = [*(message["content"] for message in pair.prompt), pair.chosen, pair.rejected]
    return any(_SPECIAL.search(text) or next(renderer.matches(text), None) for text in texts)


def framed_twice(pair: Pair) -> bool:
    """Whether a pair is rendered already, by the rules of ``llm.data.layouts.rendered``, and gets a second frame.

    Files are taken apart when they are read; other pairs and conversations of several turns are not.
    """
    texts = [message["content"] for message in pair.prompt]
    try:
        return any(map(asked, texts)) or bool(texts and unwrapped(texts[-1], pair.chosen, pair.rejected))
    except Malformed:
        return True
