"""``serve``: a reward model over HTTP."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace

from .shell import Arguments, Parser, add_reading, one_sentence_errors, parser_of

LOOPBACK = "127.0.0.1"


def parser() -> Parser:
    """What ``serve`` takes."""
    told = parser_of(
        "serve", "A reward model over HTTP: POST /score, /get_reward (OpenRLHF), /classify (verl); GET /health."
    )
    told.add_argument("model", help="run folder, model folder, alias or hub name of a reward model")
    told.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on; any but a loopback one opens it to others (default: %(default)s)",
    )
    told.add_argument("--port", metavar="N", type=int, default=5000, help="0 takes a free one (default: %(default)s)")
    add_reading(told)
    told.add_argument(
        "--batch-tokens",
        metavar="N",
        type=int,
        default=16384,
        help="tokens per forward, padding included (default: %(default)s)",
    )
    told.add_argument(
        "--max-body", type=int, default=2**23, metavar="BYTES", help="of a request (default: %(default)s)"
    )
    told.add_argument(
        "--max-items", metavar="N", type=int, default=1024, help="answers of a request (default: %(default)s)"
    )
    told.add_argument(
        "--max-connections", metavar="N", type=int, default=512, help="clients at a time (default: %(default)s)"
    )
    told.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="for an answer, waiting included (default: %(default)s)",
    )
    return told


@one_sentence_errors
def serve(argv: Arguments) -> int:
    """Answer requests for rewards until SIGTERM or Ctrl-C, then those that are under way."""
    options = parser().parse_args(argv)
    if not 0 <= options.port < 2**16:
        raise ValueError(f"--port is a number from 0 to 65535, got {options.port}")
    return _serve(options)


def _serve(options: Namespace) -> int:
    from ..api.scores import reward_reader
    from ..serving.connection import ServerLimits
    from ..serving.reading import check_numbers
    from ..serving.server import Server, Service

    limits = ServerLimits(
        body=options.max_body, items=options.max_items, connections=options.max_connections,
        held=max(2**26, options.max_body), answer_seconds=options.timeout,
    )  # fmt: skip
    check_numbers(max_body=limits.body, max_items=limits.items, max_connections=limits.connections)
    check_numbers(timeout=limits.answer_seconds)
    names = ("max_length", "batch_size", "batch_tokens", "dtype", "trust_remote_code")
    reader = reward_reader(options.model, **{name: getattr(options, name) for name in names})
    service = Service(reader, {"model": options.model, "max_length": reader.max_length}, limits)
    try:
        asyncio.run(Server(service, limits).run(options.host, options.port, lambda *place: _say(options, *place)))
    except OSError as error:
        raise ValueError(
            f"{options.host}, port {options.port} cannot be opened ({error.strerror or error}): choose others with "
            "--host and --port"
        ) from error
    finally:
        service.batcher.close(timeout=60)
    return 0


def _say(options: Namespace, host: str, port: int) -> None:
    from ipaddress import ip_address

    from ..run.escaping import visible

    if not ip_address(host.partition("%")[0]).is_loopback:
        sys.stderr.write("robust-rlhf: other machines can reach this server, and it asks nobody who they are\n")
    named = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"{visible(options.model)} answers on http://{named}:{port} (Ctrl-C ends it)\n")
    sys.stdout.flush()
