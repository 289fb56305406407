"""What the commands of this package share: their parsers, and errors in one sentence."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from dro_core.command_line.parser import REFUSED, Parser, refused

from ..run.terminal import quiet_libraries

Arguments = Sequence[str]
_GOES_ON = {
    **dict.fromkeys(("train", "demo"), "; it goes on with --resume"),
    **dict.fromkeys(("pipeline", "sweep"), "; it goes on when started again"),
}


def one_sentence_errors(command: Callable[[Arguments], int]) -> Callable[[Arguments], int]:
    """Wrong input ends with one plain sentence and status 2, Ctrl-C with status 130, SIGTERM with 143."""

    def run(argv: Arguments) -> int:
        quiet_libraries()
        try:
            return command(argv)
        except KeyboardInterrupt as stop:
            if not getattr(stop, "said_by_main_process", False):
                sys.stderr.write(f"robust-rlhf: interrupted{_GOES_ON.get(command.__name__, '')}\n")
            return 128 + getattr(stop, "number", signal.SIGINT)
        except BrokenPipeError:
            raise  # the front door ends quietly
        except Exception as error:
            if not _is_ours(error):
                raise
            if not getattr(error, "said_by_main_process", False):
                refused(error)
            if getattr(error, "leaves_broken_group", False):
                sys.stderr.flush()
                os._exit(REFUSED)
            return REFUSED

    run.__doc__ = command.__doc__
    return run


def _is_ours(error: BaseException) -> bool:
    """Input and surroundings, said by us or a library; ROBUST_RLHF_TRACEBACK=1 shows where it came from."""
    if os.environ.get("ROBUST_RLHF_TRACEBACK"):
        return False
    return type(error).__module__.split(".")[0] in ("llm", "dro_core") or isinstance(
        error, OSError | ValueError | ArithmeticError
    )


def add_columns(parser: Parser) -> None:
    """The flag that says which column holds what."""
    parser.add_argument(
        "--columns",
        metavar="KEY=COLUMN,...",
        help="which column holds what, for files in no known layout: prompt=question,chosen=good,rejected=bad",
    )


def add_reading(parser: Parser) -> None:
    """The flags that say how a reward model is loaded, and reads."""
    add_max_length(parser)
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=32,
        help="pairs per forward, or half as many as answers (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="default: %(default)s"
    )
    add_trust(parser)


def add_max_length(parser: Parser) -> None:
    """The flag that says how much of an answer is read."""
    parser.add_argument(
        "--max-length", metavar="N", type=int, help="tokens per answer with its prompt (default: as in training)"
    )


def add_trust(parser: Parser) -> None:
    """The flag without which no repository's own code runs."""
    parser.add_argument("--trust-remote-code", action="store_true", help="let a hub repository run its own code")


def parser_of(name: str, description: str) -> Parser:
    """The parser of one command."""
    return Parser(f"robust-rlhf {name}", description=description)
