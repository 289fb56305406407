"""The server: connections, routes and the end of both."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import cast

from .batching import Batcher, ReadsAndScores
from .connection import BUFFER, Connection, Handler, Held, Request, ServerLimits
from .dialects import DIALECTS, Content, HttpError, answers_in, check_found, content_of

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service:
    """What a model answers to whole requests.

    Args:
        reader: The model, asked by one thread.
        about: What ``/health`` says of it.
        limits: How many answers a request may have.
    """

    def __init__(self, reader: ReadsAndScores, about: Content, limits: ServerLimits) -> None:
        self.batcher = Batcher(reader)
        self.stopping = False
        self._about, self._limits = about, limits

    async def __call__(self, request: Request) -> Content:
        """The content of the response.

        Raises:
            HttpError: There is none.
        """
        if request.path == "/health":
            self._check_method(request, "GET", "HEAD")
            if self.stopping:
                raise HttpError(503, "the server is stopping")
            return {"status": "ok", **self._about, "waiting": self.batcher.waiting}
        if request.path not in DIALECTS:
            raise HttpError(404, f"there is no {request.path}; there are /health, {', '.join(DIALECTS)}")
        self._check_method(request, "POST")
        return await self._scored(request)

    async def _scored(self, request: Request) -> Content:
        asked = DIALECTS[request.path](content_of(request.body))
        if (count := answers_in(asked.items)) > self._limits.items:
            raise HttpError(413, f"{count} answers are too many for a request, at most {self._limits.items}")
        try:
            found = await asyncio.wrap_future(self.batcher.submit(asked.items)) if asked.items else []
        except Exception as error:  # it is logged where it happened
            raise HttpError(500, f"the model failed ({type(error).__name__}); the server's log says how") from error
        check_found(found)
        return asked.response(found)

    @staticmethod
    def _check_method(request: Request, *methods: str) -> None:
        if request.method not in methods:
            raise HttpError(405, f"{request.path} is asked by {methods[0]}", Allow=", ".join(methods))


class Server:
    """Listens, and ends without losing what is under way.

    Args:
        service: Answers requests.
        limits: What is borne.
    """

    def __init__(self, service: Service, limits: ServerLimits) -> None:
        self.service, self.limits = service, limits
        self._connections: dict[asyncio.Task[object], Connection] = {}
        self._held = Held(limits.held)
        self._stop, self._now = asyncio.Event(), asyncio.Event()

    async def run(self, host: str, port: int, ready: Callable[[str, int], object], *, signals: bool = True) -> None:
        """Serve until told to stop: by ``stop``, or by SIGTERM or SIGINT; a second one does not wait for anyone.

        Args:
            host: Address to listen on.
            port: 0 takes a free one.
            ready: Called with both once clients may come.
            signals: Whether to listen to signals, which only a main thread can.

        Raises:
            OSError: The port cannot be opened.
        """
        loop = asyncio.get_running_loop()
        listening = await asyncio.start_server(
            self._connected, host, port, limit=BUFFER, backlog=self.limits.connections
        )
        for number in _SIGNALS if signals else ():
            loop.add_signal_handler(number, self.stop)
        try:
            ready(*listening.sockets[0].getsockname()[:2])
            await self._stop.wait()
            listening.close()
            await self._drained()
        finally:
            for number in _SIGNALS if signals else ():
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take no more clients and end when those that are here are answered; the second time, end now."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    async def _drained(self) -> None:
        self.service.stopping = True
        for task, connection in self._connections.items():
            connection.closing = True
            if connection.idle:
                task.cancel()
        now = asyncio.ensure_future(self._now.wait())
        everyone = asyncio.ensure_future(self._all_gone())
        await asyncio.wait((now, everyone), timeout=self.limits.grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._connections:
            _log.warning("%d requests were not answered in time", len(self._connections))
        for task in [now, everyone, *self._connections]:
            task.cancel()
        await asyncio.gather(now, everyone, *self._connections, return_exceptions=True)

    async def _all_gone(self) -> None:
        while self._connections:
            await asyncio.wait([*self._connections])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, handler = asyncio.current_task(), cast(Handler, self.service)
        assert task is not None
        connection = Connection(reader, writer, handler, self.limits, self._held)
        full, connection.closing = len(self._connections) >= self.limits.connections, self._stop.is_set()
        self._connections[task] = connection
        try:
            if full:
                await connection.refuse(HttpError(503, "too many clients: try again later", **{"Retry-After": "1"}))
            else:
                await connection.run()
        except asyncio.CancelledError:
            pass  # the server ends
        except Exception as error:
            _log.warning("a connection failed: %s: %s", type(error).__name__, error)
        finally:
            del self._connections[task]
