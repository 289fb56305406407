"""One HTTP/1.1 connection: requests within limits of size and time, read by h11, and their answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import h11

from .dialects import Content, HttpError

BUFFER = 2**15  # bytes that are read of a socket at once
_AHEAD = 2**16  # bytes that a client may send behind a request before it is answered
_DISCARDED = 2.0  # seconds in which the rest of a refused body is read, so that the client sees the refusal


@dataclass(frozen=True)
class ServerLimits:
    """What the server bears.

    Attributes:
        body: Bytes of a request's body.
        items: Answers of a request.
        connections: Clients at the same time.
        held: Bytes of the bodies of all requests that are not answered yet.
        head: Bytes of a request's head.
        read_seconds: Within which a request must be there, and its answer taken.
        answer_seconds: Within which it must be answered.
        idle_seconds: That a connection may wait for its next request.
        grace_seconds: That requests have to end when the server stops.
    """

    body: int = 2**23
    items: int = 1024
    connections: int = 512
    held: int = 2**26
    head: int = 2**14
    read_seconds: float = 10.0
    answer_seconds: float = 300.0
    idle_seconds: float = 60.0
    grace_seconds: float = 30.0


class Request(NamedTuple):
    """A whole request."""

    method: str
    path: str
    body: bytes


Handler = Callable[[Request], Awaitable[Content]]


class Held:
    """How many bytes of bodies all connections hold, of at most ``most``."""

    def __init__(self, most: int) -> None:
        self.bytes, self._most = 0, most

    def take(self, count: int) -> None:
        """Hold so many more.

        Raises:
            HttpError: There is no room for them.
        """
        if self.bytes + count > self._most:
            raise HttpError(503, "too many requests are waiting: try again later", **{"Retry-After": "1"})
        self.bytes += count

    def give(self, count: int) -> None:
        """Hold so many less."""
        self.bytes -= count


class _Gone(Exception):
    """The client has left, or nothing more is to be said to it."""


class Connection:
    """A client, from its first request to its last.

    Attributes:
        idle: No request is under way: the connection may be closed without loss.
        closing: The next answer is the last.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        limits: ServerLimits,
        held: Held,
    ) -> None:
        self.idle, self.closing = True, False
        self._reader, self._writer, self._handler, self._limits, self._held = reader, writer, handler, limits, held
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)
        self._holds, self._asks_head = 0, False

    async def run(self) -> None:
        """Answer requests until one side closes."""
        try:
            while await self._one():
                self.idle = True
                if self.closing:
                    break
                self._http.start_next_cycle()
        except (_Gone, ConnectionError, TimeoutError):
            pass
        finally:
            await self._close()

    async def refuse(self, error: HttpError) -> None:
        """Say why, whatever was asked, and close."""
        try:
            await self._send_error(error)
        except (_Gone, ConnectionError, TimeoutError):
            pass
        finally:
            await self._close()

    async def _one(self) -> bool:
        """Answer one request; whether there may be another."""
        try:
            try:
                content = await self._answered(await self._request())
            finally:
                self._release()
        except HttpError as error:
            await self._send_error(error)
        else:
            await self._send(200, content, {})
        return self._may_go_on()

    def _may_go_on(self) -> bool:
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> Request:
        head = await self._event(time.monotonic() + self._limits.idle_seconds)
        if not isinstance(head, h11.Request):
            raise _Gone
        until, body = time.monotonic() + self._limits.read_seconds, bytearray()
        self._asks_head = head.method == b"HEAD"
        self._check_head(head)
        try:
            while isinstance(event := await self._event(until), h11.Data):
                if len(body) + len(event.data) > self._limits.body:
                    raise self._too_large()
                self._hold(len(event.data))
                body += event.data
        except HttpError:
            body.clear()  # the error remembers this frame for as long as it is told
            raise
        if not isinstance(event, h11.EndOfMessage):
            raise _Gone
        path = head.target.decode("latin-1").partition("?")[0]
        return Request(head.method.decode("latin-1"), path, bytes(body))

    def _check_head(self, head: h11.Request) -> None:
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        if int(headers.get(b"content-length", "0")) > self._limits.body:
            raise self._too_large()
        if headers.get(b"content-encoding", "identity").lower() != "identity":
            raise HttpError(415, "send the body as it is, without a content encoding")

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self._limits.body} bytes: send less at once")

    def _hold(self, count: int) -> None:
        self._held.take(count)
        self._holds += count

    def _release(self) -> None:
        self._held.give(self._holds)
        self._holds = 0

    async def _event(self, until: float) -> object:
        """What the client says next.

        Raises:
            HttpError: It is no HTTP, or comes too slowly.
            _Gone: It has left, or said nothing at all.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(error.error_status_hint, f"this is no HTTP request ({error})") from error
            if event is not h11.NEED_DATA:
                self.idle = self.idle and not isinstance(event, h11.Request)
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            try:
                async with asyncio.timeout_at(_in_loop(until)):
                    data = await self._reader.read(BUFFER)
            except TimeoutError:
                if self.idle:
                    raise _Gone from None
                raise HttpError(408, f"the request took longer than {self._limits.read_seconds:g} s to come") from None
            if self.idle and data:  # from its first byte on
                self.idle, until = False, min(until, time.monotonic() + self._limits.read_seconds)
            self._http.receive_data(data)

    async def _answered(self, request: Request) -> Content:
        """What the handler says, unless the client leaves before.

        Raises:
            HttpError: As the handler; or it takes too long.
        """
        job = asyncio.ensure_future(self._handler(request))
        gone = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((job, gone), timeout=self._limits.answer_seconds, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
            if gone.done():
                raise _Gone
            raise HttpError(503, f"not answered within {self._limits.answer_seconds:g} s: send less at once")
        finally:
            for task in (job, gone):
                task.cancel()
            await asyncio.gather(job, gone, return_exceptions=True)

    async def _left(self) -> None:
        """Return once the client has left; what it sends ahead is kept, up to a size."""
        ahead = 0
        while ahead < _AHEAD:
            try:
                data = await self._reader.read(BUFFER)
            except ConnectionError:
                return
            if not data:
                return
            ahead += len(data)
            self._http.receive_data(data)
        await asyncio.get_running_loop().create_future()

    async def _send_error(self, error: HttpError) -> None:
        said = str(error)
        said = said if len(said) <= 500 else f"{said[:500]} ..."
        whole = self._http.their_state in (h11.DONE, h11.IDLE)
        if not whole or error.status in (408, 503):
            self.closing = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(error.status, {"error": {"message": said, "code": error.status}}, error.headers)
        if not whole:
            await self._discard()

    async def _send(self, status: int, content: Content, headers: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        if self.closing:
            named["Connection"] = "close"
        told = h11.Response(status_code=status, headers=list(named.items()))
        shown = [] if self._asks_head else [h11.Data(data=body)]
        parts = [self._http.send(event) for event in (told, *shown, h11.EndOfMessage())]
        await self._write(b"".join(part for part in parts if part))

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        async with asyncio.timeout(self._limits.read_seconds):
            await self._writer.drain()

    async def _discard(self) -> None:
        """Read what the client still sends of a request that is refused already."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(_DISCARDED):
            while await self._reader.read(BUFFER):
                pass

    async def _close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.read_seconds):
                await self._writer.wait_closed()
        except (ConnectionError, TimeoutError):
            self._writer.transport.abort()


def _in_loop(until: float) -> float:
    """A time of ``time.monotonic`` as the event loop counts."""
    return asyncio.get_running_loop().time() + until - time.monotonic()
