"""What a worker of a cluster does: it begins once, then carries out one call after the other."""

from __future__ import annotations

import pickle
import platform
import socket
import threading
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from ..workers import packed, reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..workers import Setup

_DECISIVE = ("robust-rlhf", "numpy", "scipy", "torch", "transformers", "hypothesis")
_alone = threading.Lock()  # a worker of Dask can have several threads
_begun: list[bytes] = []  # what this worker began with


class OtherVersions(RuntimeError):
    """A worker has another Python or other libraries; the message says which."""


class Request(NamedTuple):
    """What all calls have in common.

    Attributes:
        setup: A function and its arguments, or None, packed.
        threads: As of ``Pool.answers``.
        versions: Of Python and of the libraries that results depend on, as they are where the calls come from.
    """

    setup: bytes
    threads: int | None
    versions: Mapping[str, str]

    @classmethod
    def of(cls, setup: Setup | None, threads: int | None) -> Request:
        """With the versions of this process."""
        return cls(packed(setup), threads, versions())


def carry_out(request: Request, call: bytes) -> bytes:
    """Value and error of a call, packed."""
    from threadpoolctl import threadpool_limits  # pyright: ignore

    def work(request: Request) -> Any:
        _compare(request.versions)
        with threadpool_limits(request.threads):
            if _begun != [request.setup]:
                _begun.clear()
                if setup := pickle.loads(request.setup):
                    setup[0](*setup[1])
                _begun.append(request.setup)
            function, item = pickle.loads(call)
            return function(item)

    with _alone:
        return reply(work, request)


@cache
def versions() -> Mapping[str, str]:
    """Of what results depend on, as far as it is installed; without what a build adds behind a +."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in _DECISIVE:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name).partition("+")[0]
    return found


def _compare(theirs: Mapping[str, str]) -> None:
    ours = versions()
    other = [name for name, version in theirs.items() if ours.get(name, version) != version]
    if other:
        here, there = (", ".join(f"{name} {known[name]}" for name in other) for known in (ours, theirs))
        raise OtherVersions(f"the worker on {socket.gethostname()} has {here}, and not {there}: install the same")
