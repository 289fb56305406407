"""A cluster of one worker, a thread of this process, for what is ours of a cluster: all but the way there and back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from dro_core.clusters import joining, pool
from dro_core.clusters.joining import Cluster


def bring_near(monkeypatch):
    """Have it in the place of Dask; a call that leaves its process loses its worker."""
    monkeypatch.setattr(pool, "check", lambda backend, address: None)
    monkeypatch.setitem(joining.JOIN, "dask", _nearby)


@contextmanager
def _nearby(address, jobs, call, *, gpu):
    with ThreadPoolExecutor(1) as worker:
        yield Cluster("the cluster nearby", jobs or 2, partial(worker.submit, _served, call))


def _served(call, request, packed):
    try:
        return call(request, packed)
    except SystemExit as leaves:
        raise RuntimeError("the worker died") from leaves
