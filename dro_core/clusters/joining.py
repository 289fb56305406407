"""Clusters of Ray and Dask: whether one answers, and joining it, or starting one of our own on this machine.

Our own listens to this machine alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from ..messages import one_line
from ..workers import cores
from .worker import Request

_MODULES = {"ray": "ray", "dask": "distributed"}
_ANSWERS = 5.0  # seconds for an address to answer
_STORE = 100 * 2**20  # bytes for what passes through; by itself Ray takes a third of the memory
# How a client of HTTP/2 begins, and Ray speaks that: a preface and no settings. A server answers with its settings.
_SETTINGS = 4
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))
Work = Callable[[Request, bytes], bytes]


class ClusterError(ConnectionError):
    """There is no such cluster, or it cannot do this work; one sentence says what to do."""


class Cluster(NamedTuple):
    """A cluster that this process has joined.

    Attributes:
        name: For messages.
        jobs: Calls at a time.
        submit: Hands a request and a call over to a worker. Its future fails with a ``ClusterError`` where the whole
            cluster is gone, and with any other error where the worker was lost.
    """

    name: str
    jobs: int
    submit: Callable[[Request, bytes], Future[bytes]]


class Join(Protocol):
    """A cluster, for as long as it is needed."""

    def __call__(
        self, address: str | None, jobs: int | None, call: Work, *, gpu: bool
    ) -> AbstractContextManager[Cluster]:
        """Join the one at the address, or start one that ends with this.

        Args:
            address: Of a cluster that was looked at by ``check``; None for one of our own.
            jobs: Calls at a time; None for as many as there are workers, or cores.
            call: What a worker calls.
            gpu: As of ``Pool.answers``.

        Raises:
            ClusterError: It cannot be joined, or has no worker.
        """
        ...


def check(backend: str, address: str | None) -> None:
    """Look, within seconds, whether there is such a cluster.

    Raises:
        ClusterError: Nothing answers, or the package for it is not installed.
    """
    name = backend.capitalize()
    if find_spec(_MODULES[backend]) is None:
        raise ClusterError(f"{name} is not installed: pip install 'robust-rlhf[{backend}]'")
    if address is None:
        return
    try:
        there = _of_this_machine() if address == "auto" else address
        _knock(there, greets=backend == "ray" and os.environ.get("RAY_USE_TLS", "0") == "0")
        found = None if backend == "ray" else _identity(address)["type"]
    except Exception as error:  # there may be anything
        why = one_line(error) or type(error).__name__
        raise ClusterError(f"no cluster of {name} answers at {address} ({why}): is it running there?") from error
    if found not in (None, "Scheduler"):
        raise ClusterError(f"at {address} is a {found} of Dask: give the address of its scheduler")


def _of_this_machine() -> str:
    """Where Ray looks by itself: at what runs here, and else where the last one was, which may have been killed."""
    return import_module("ray._private.services").get_ray_address_from_environment("auto", None)


def _knock(address: str, *, greets: bool) -> None:
    """Connect, since Ray's own client tries for minutes; raises where nobody is there, or somebody else."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS) as stream:
        if greets:
            stream.sendall(_HELLO)
            if stream.recv(4)[3:] != bytes((_SETTINGS,)):
                raise ConnectionError("another service is there")


def _identity(address: str) -> Mapping[str, Any]:
    """What a server of Dask says of itself."""
    from distributed import rpc  # pyright: ignore
    from distributed.security import Security  # pyright: ignore

    async def ask() -> Mapping[str, Any]:
        arguments: Any = Security().get_connection_args("client")  # pyright: ignore
        async with rpc(address, timeout=_ANSWERS, connection_args=arguments) as server:  # pyright: ignore
            return await asyncio.wait_for(server.identity(), _ANSWERS)  # pyright: ignore

    return asyncio.run(ask())


@contextmanager
def _ray(address: str | None, jobs: int | None, call: Work, *, gpu: bool) -> Generator[Cluster]:
    own: dict[str, Any] = {}
    if address is None:
        own = {"num_cpus": jobs or cores(), "include_dashboard": False, "object_store_memory": _STORE}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # which does not leave 127.0.0.1
    import ray  # pyright: ignore

    lib: Any = ray
    name = f"the Ray cluster at {address}" if address else "Ray on this machine"
    try:
        lib.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of its client, its versions, its servers
        raise ClusterError(f"{name} cannot be joined: {one_line(error)}") from error
    try:
        there: dict[str, float] = lib.cluster_resources()
        gpu = gpu and "GPU" in there
        workers = int(there.get("GPU" if gpu else "CPU", 0))
        if not workers:
            raise ClusterError(f"{name} has no worker: add a node with a CPU to it")
        called = lib.remote(max_retries=0, num_gpus=int(gpu))(call)

        def submit(request: Request, packed: bytes) -> Future[bytes]:
            return called.remote(request, packed).future()

        yield Cluster(name, jobs or workers, submit)
    finally:
        lib.shutdown()


@contextmanager
def _dask(address: str | None, jobs: int | None, call: Work, *, gpu: bool) -> Generator[Cluster]:
    import dask  # pyright: ignore
    import distributed  # pyright: ignore

    lib: Any = distributed
    name = f"the Dask cluster at {address}" if address else "Dask on this machine"
    asked: dict[str, Any] = {"address": address, "timeout": _ANSWERS}
    if address is None:
        asked = {
            "host": "127.0.0.1",
            "dashboard_address": "127.0.0.1:0",
            "n_workers": jobs or cores(),
            "threads_per_worker": 1,
            "memory_limit": 0,  # it would kill what uses more than its share
            "silence_logs": logging.CRITICAL,
        }
    once: Any = dask.config.set({"distributed.scheduler.allowed-failures": 0})  # pyright: ignore
    with _quiet("distributed", "tornado"), once, lib.Client(**asked) as client:
        threads: dict[str, int] = client.nthreads()
        if not threads:
            raise ClusterError(f"{name} has no worker: start some with `dask worker {address} --nthreads 1`")
        if set(threads.values()) != {1}:
            raise ClusterError(f"a worker of {name} has several threads: start all with `--nthreads 1`")

        def submit(request: Request, packed: bytes) -> Future[bytes]:
            theirs, ours = client.submit(call, request, packed, pure=False), Future[bytes]()
            theirs.add_done_callback(partial(_settle, ours, name))
            return ours

        yield Cluster(name, jobs or len(threads), submit)


def _settle(ours: Future[bytes], name: str, theirs: Any) -> None:
    """Take over what came of a call. Dask's own executor forgets a future whose scheduler has just died."""
    from distributed import CancelledError  # pyright: ignore

    try:
        result = theirs.result()
    except (CancelledError, OSError):
        ours.set_exception(ClusterError(f"{name} is gone: start it again, and then this"))
    except Exception as error:
        ours.set_exception(error)
    else:
        ours.set_result(result)


@contextmanager
def _quiet(*libraries: str) -> Generator[None]:
    """No word of theirs on workers that come and go: the answers say what became of them."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


JOIN: Mapping[str, Join] = {"ray": _ray, "dask": _dask}
