"""Calls here or on a cluster, answered alike: what one returns does not depend on where, a lost worker costs its own.

The commands of all packages share this.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ..messages import one_line
from ..workers import Answer, Setup, WorkerDied, cores, packed, side_by_side
from .joining import JOIN, ClusterError, check
from .worker import Request, carry_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from .joining import Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")

BACKENDS = ("loky", *JOIN)
_FORMS = {
    "ray": (r"auto|(ray://)?[^/]+:\d+", "ray://HOST:10001, HOST:6379 or auto"),
    "dask": (r"((tcp|tls|wss?|ucx)://)?[^/]+:\d+", "tcp://HOST:8786"),
}
_BEGINS = 300.0  # seconds for a first worker to start, and to load what it needs


@dataclass(frozen=True)
class Pool:
    """Where calls run.

    Attributes:
        backend: ``loky``, which is processes of this machine, or ``ray`` or ``dask``.
        jobs: Calls at a time; None for one per core here, and per worker of a cluster.
        address: Of a running cluster; None for one of our own on this machine, which ends with the calls.

    Raises:
        ValueError: An address that no cluster of this backend has.

    Example:
        >>> [answer.value for answer in Pool("loky", jobs=1).answers(abs, [-3])]
        [3]
    """

    backend: str = "loky"
    jobs: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is None:
            return
        if self.is_here:
            raise ValueError(f"{self.address} would be a cluster, and the backend is loky: choose ray or dask")
        form, example = _FORMS[self.backend]
        if not re.fullmatch(form, self.address):
            raise ValueError(f"a cluster of {self.backend.capitalize()} is at {example}, got {self.address}")

    @property
    def is_here(self) -> bool:
        """Whether calls run in processes that this one starts and watches."""
        return self.backend == "loky"

    def check(self) -> None:
        """Look, within seconds, whether there is such a cluster.

        Raises:
            ClusterError: Nothing answers, or the package for it is not installed.
        """
        if not self.is_here:
            check(self.backend, self.address)

    def answers(
        self,
        call: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        setup: Setup | None = None,
        threads: int | None = None,
        gpu: bool = False,
    ) -> Generator[Answer[Item, Result]]:
        """Yield the answers as they come, in any order: one for every item, whatever becomes of its worker.

        Args:
            call: Called in a worker, one at a time in each.
            items: What it is called with; taken one by one, when a worker is free.
            setup: A function and its arguments, called first in every worker, also in one that follows a lost one.
            threads: That numerical libraries may use in each; None leaves it to them.
            gpu: Whether a call has a GPU for itself, where Ray has any; a worker of Dask has those it was started with.

        Raises:
            ClusterError: There is no such cluster, none of its workers can do this, or it is gone; what is not answered
                by then may be tried again.
        """
        if self.is_here:
            yield from side_by_side(call, items, jobs=self.jobs or cores(), setup=setup, threads=threads)
            return
        self.check()
        request = Request.of(setup, threads)
        with JOIN[self.backend](self.address, self.jobs, carry_out, gpu=gpu) as cluster:
            _begin(cluster, request)
            yield from _answers(cluster, call, items, request)


def _begin(cluster: Cluster, request: Request) -> None:
    """Have one worker begin, so that what none of them can do is said once, and not for every item."""
    try:
        error = pickle.loads(cluster.submit(request, packed((len, ""))).result(_BEGINS))[1]
    except TimeoutError as late:
        raise ClusterError(f"no worker of {cluster.name} was free within {_BEGINS:g} seconds: try later") from late
    except ClusterError:
        raise
    except Exception as lost:  # it cannot even load this module, or was killed
        why = f"{type(lost).__name__}: {one_line(lost)}"
        raise ClusterError(
            f"a worker of {cluster.name} ended as it began, is robust-rlhf there as here? ({why})"
        ) from lost
    if error is not None:
        raise ClusterError(f"{cluster.name}: {one_line(error)}") from error


def _answers(
    cluster: Cluster, call: Callable[[Item], Result], items: Iterable[Item], request: Request
) -> Generator[Answer[Item, Result]]:
    waiting = iter(items)
    asked = {cluster.submit(request, packed((call, item))): item for item in islice(waiting, cluster.jobs)}
    while asked:
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            item = asked.pop(future)
            for following in islice(waiting, 1):
                asked[cluster.submit(request, packed((call, following)))] = following
            yield Answer(item, *_answer(future))


def _answer(future: Future[bytes]) -> tuple[Any, Exception | None]:
    try:
        answer = future.result()
    except ClusterError:
        raise
    except Exception as lost:
        return None, WorkerDied(f"its worker was lost ({type(lost).__name__})")
    try:
        return pickle.loads(answer)
    except Exception as error:  # an answer that cannot be read here
        return None, error
