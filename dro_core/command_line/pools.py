"""The flags that say where the work of a command runs."""

from __future__ import annotations

import argparse
import os

from ..clusters.pool import BACKENDS, Pool
from .parser import Parser, UsageError

_VARIABLES = {"ray": "RAY_ADDRESS", "dask": "DASK_SCHEDULER_ADDRESS"}
_MOST = 10_000


def add_pool(parser: Parser, *, jobs: str) -> None:
    """Add ``--jobs``, whose help is given, ``--backend`` and ``--address``, spelt alike in all commands."""
    parser.add_argument("--jobs", type=_jobs, metavar="N", help=jobs)
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="loky",
        help="what runs them: loky, processes of this machine (default), or ray or dask, on a cluster",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of a running cluster, tcp://HOST:8786 of Dask, HOST:6379, ray://HOST:10001 or auto of Ray (default: "
        "DASK_SCHEDULER_ADDRESS or RAY_ADDRESS, else one of its own here)",
    )


def pool_of(arguments: argparse.Namespace, *, alone: int | None = None) -> Pool:
    """What the flags ask for, if it is there.

    Args:
        arguments: Of a parser that ``add_pool`` added them to.
        alone: Processes of this machine where ``--jobs`` is not given; None for one per core.

    Raises:
        UsageError: An address that makes no sense.
        ClusterError: Nothing answers there, or the package for it is not installed.
    """
    variable = _VARIABLES.get(arguments.backend, "")
    address, named = arguments.address, "--address"
    if address is None and os.environ.get(variable):
        address, named = os.environ[variable], variable
    jobs = arguments.jobs or (alone if arguments.backend == "loky" else None)
    try:
        pool = Pool(arguments.backend, jobs, address)
    except ValueError as error:
        raise UsageError(f"{named}: {error}") from None
    pool.check()
    return pool


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST):
        raise argparse.ArgumentTypeError(f"must be a whole number in [1, {_MOST}], got {text}")
    return int(text)
