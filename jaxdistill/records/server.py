"""Servers that speak the protocol of OpenAI, over HTTP: what is asked again, what is waited for.

An answer that is late, cut, of another content type or no JSON is asked again, later each time;
so is one that the server had no room for. What cannot become better stops the run, with one
sentence. A key is read from the environment when the first question is sent, and is in no file, no
log and no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.utils
import json
import math
import os
import queue
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jaxdistill.records.steps import draw
from jaxdistill.settings import Count, Natural, Positive, fault

_Question = TypeVar("_Question")
_Found = TypeVar("_Found")
_LONGEST_PAUSE = 60.0  # seconds between two tries, unless the server asks for more
_LONGEST_WAIT = 900.0  # seconds that a server may ask for
_LARGEST = 256 * 2**20  # bytes of one answer
# What may be better the next time: late, in conflict, too early, too many, and faults of servers.
_PASSING = {408, 409, 425, 429}
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a model is served, and how patient we are.

    Attributes:
        url: up to the version, such as ``"http://127.0.0.1:8000/v1"``.
        model: its name there.
        key: the name of the environment variable that holds the key, such as ``"OPENAI_API_KEY"``;
            empty for servers without one.
        in_flight: how many questions wait for an answer at once.
        per_minute: the most questions a minute; as many as there is time for if None.
        timeout: seconds for one answer, from its question to its last byte.
        retries: how often one question is asked again.
        pause: seconds before the first retry; twice as many before each next one.

    Raises:
        ValueError: naming the field; for a key in place of the name of its variable, and an address
            with a key or password in it.

    Example:
        >>> Server("http://127.0.0.1:8000/v1", "tiny").in_flight
        16
    """

    url: str
    model: str
    key: str = ""
    in_flight: Count = 16
    per_minute: Positive | None = None
    timeout: Positive = 600.0
    retries: Natural = 6
    pause: Positive = 1.0

    def __post_init__(self):
        if self.key and not _NAME.fullmatch(self.key):
            raise ValueError(
                "server: 'key' is the name of an environment variable in capitals, such as "
                "'OPENAI_API_KEY', never the key itself"
            )
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "server: 'url' has a password or a query in it: keys come from the environment, by "
                "the name of their variable in 'key'"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server: url={self.url!r} is no address such as http://host:8000/v1")
        if not self.model:
            raise ValueError("server: 'model' is the name of a model there, not empty")
        for name, domain in _DOMAINS.items():
            value = getattr(self, name)
            if value is None and name == "per_minute":
                continue
            if (wrong := fault(value, domain)) is not None:
                raise ValueError(f"server: {name}={value!r} {wrong}")


_DOMAINS: dict[str, Any] = {
    "in_flight": Count,
    "per_minute": Positive,
    "timeout": Positive,
    "retries": Natural,
    "pause": Positive,
}


class Unanswered(Exception):
    """One question has no answer; others may have one."""


class Malformed(Exception):
    """An answer that is not what it should be; the question is asked again."""


class _Passing(Exception):
    """A try that failed, and how long the server asks to wait."""

    def __init__(self, said: str, wait: float = 0.0):
        super().__init__(said)
        self.wait = wait


class Connection:
    """An open connection to a server, for one event loop.

    Raises:
        ImportError: without the extra ``records``.
        ValueError: if the key's variable is empty.
    """

    def __init__(self, server: Server):
        httpx2 = _client_library()
        self._server = server
        self._secret = _secret(server)
        headers = {"Accept": "application/json", "User-Agent": "jaxdistill"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        many = server.in_flight
        limits = httpx2.Limits(max_connections=many, max_keepalive_connections=many)
        # A redirect would take the key elsewhere. How long an answer may take is ours to say.
        self._client = httpx2.AsyncClient(
            headers=headers, limits=limits, follow_redirects=False, timeout=None
        )
        self._next = 0.0  # when the next question may be sent
        self._failed = 0  # questions in a row that the server did not answer

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._client.aclose()

    async def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], _Found], name: str
    ) -> _Found:
        """Asks until there is an answer.

        Args:
            path: behind the server's address, such as ``"/chat/completions"``.
            body: JSON data.
            read: what the answer says, of its JSON data; raises :class:`Malformed`, or
                :class:`Unanswered` where asking again would not help.
            name: of the question, by which pauses differ.

        Raises:
            Unanswered: after the last try, or where asking again would not help.
            ValueError: where no question would be answered: a wrong key, address or model.
            ConnectionError: if the server has answered nothing for many questions.
        """
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        tries = self._server.retries + 1
        failed: Exception = Malformed()
        for number in range(tries):
            await self._turn()
            try:
                found = read(await self._try(path, content))
            except (_Passing, Malformed) as passing:
                failed = passing
            else:
                self._failed = 0
                return found
            wait = getattr(failed, "wait", 0.0)
            if wait:  # it asks everybody
                self._next = max(self._next, time.monotonic() + wait)
            if number + 1 < tries:
                pause = min(self._server.pause * 2.0**number, _LONGEST_PAUSE)
                await asyncio.sleep(max(pause * (0.5 + draw(number, name)), wait))
        said = f"{failed} (asked {tries} times)"
        if isinstance(failed, _Passing):
            self._failed += 1
            if self._failed >= max(8, 2 * self._server.in_flight):
                raise ConnectionError(
                    f"{self._server.url} has not answered {self._failed} questions in a row; the "
                    f"last time: {said}"
                )
        raise Unanswered(said)

    async def _turn(self) -> None:
        """Waits until a question may be sent."""
        now = time.monotonic()
        at = max(now, self._next)
        if self._server.per_minute is not None:
            self._next = at + 60 / self._server.per_minute
        if at > now:
            await asyncio.sleep(at - now)

    async def _try(self, path: str, content: bytes) -> Any:
        """One try: the JSON data of an answer."""
        httpx2 = _client_library()
        url = self._server.url.rstrip("/") + path
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._server.timeout),
                self._client.stream("POST", url, content=content, headers=headers) as reply,
            ):
                data = await _whole(reply)
        except TimeoutError as late:
            raise _Passing(f"no whole answer within {self._server.timeout:g} s") from late
        except (httpx2.TransportError, httpx2.DecodingError) as broken:
            said = self._without_key(f"{type(broken).__name__}: {broken}")
            raise _Passing(said) from None
        self._refuse_status(reply, data, url)
        kind = reply.headers.get("content-type", "")
        if "json" not in kind.lower():
            raise _Passing(f"an answer of type {kind or 'unknown'!r}: {self._short(data)}")
        try:
            return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as broken:
            raise _Passing(f"an answer that is no JSON ({broken}): {self._short(data)}") from None

    def _refuse_status(self, reply: Any, data: bytes, url: str) -> None:
        status = reply.status_code
        if 200 <= status < 300:
            return
        said = f"{status} {reply.reason_phrase}: {self._short(data)}"
        if status in _PASSING or status >= 500:
            raise _Passing(said, _wait_of(reply.headers.get("retry-after", "")))
        if 300 <= status < 400:
            where = self._without_key(reply.headers.get("location", "elsewhere"))
            raise ValueError(f"{url} sends on to {where}: give that as the server's url")
        if status in (401, 403):
            how = (
                f"it is read from the environment variable {self._server.key}"
                if self._server.key
                else "name the environment variable that holds it in 'key'"
            )
            raise ValueError(f"{url} does not take the key ({how}): {said}")
        if status in (404, 405):
            raise ValueError(
                f"{url} does not answer questions to model {self._server.model!r}: {said}"
            )
        raise Unanswered(said)

    def _short(self, data: bytes) -> str:
        """What an answer says, without the key, which some servers repeat."""
        said = data[:4000].decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            said = str(json.loads(said)["error"]["message"])
        said = " ".join(self._without_key(said).split())
        return said if len(said) <= 200 else said[:197] + "..."

    def _without_key(self, text: str) -> str:
        return text.replace(self._secret, "[key]") if self._secret else text


def asked(
    server: Server,
    ask: Callable[[Connection, _Question], Awaitable[_Found]],
    questions: Iterable[_Question],
) -> Iterator[_Found]:
    """What a server answers, as it answers; ``in_flight`` questions wait at once.

    It works wherever it is called, notebooks too: questions are sent by a thread of their own. When
    nobody wants the rest, all of them are given up at once.

    Args:
        server: who is asked.
        ask: how, one question at a time.
        questions: in order.

    Raises:
        ValueError: see :meth:`Connection.post`; whatever else ``ask`` raises.
    """
    found: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    begun: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def work(connection: Connection, left: Iterator[_Question]) -> None:
        for question in left:
            found.put(("answer", await ask(connection, question)))

    async def everything() -> None:
        begun.put((asyncio.get_running_loop(), asyncio.current_task()))
        left = iter(questions)
        async with Connection(server) as connection, asyncio.TaskGroup() as group:
            for _ in range(server.in_flight):
                group.create_task(work(connection, left))

    def thread() -> None:
        wrong: BaseException | None = None
        try:
            asyncio.run(everything())
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as faults:
            wrong = faults.exceptions[0]
        except BaseException as fault:
            wrong = fault
        begun.put((None, None))
        found.put(("end", wrong))

    sender = threading.Thread(target=thread, name="ask", daemon=True)
    sender.start()
    loop, task = begun.get()
    try:
        while True:
            what, value = found.get()
            if what == "answer":
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended already
            if loop is not None:
                loop.call_soon_threadsafe(task.cancel)
        sender.join()


async def _whole(reply: Any) -> bytes:
    """All of an answer, unless it does not end."""
    parts, size = [], 0
    async for part in reply.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise _Passing(f"an answer of more than {_LARGEST >> 20} MiB")
    return b"".join(parts)


def _client_library() -> Any:
    try:
        import httpx2
    except ImportError as fault:
        raise ImportError("a server needs: pip install 'jaxdistill[records]'") from fault
    return httpx2


def _secret(server: Server) -> str:
    if not server.key:
        return ""
    found = os.environ.get(server.key, "").strip()
    if not found:
        raise ValueError(
            f"the key of {server.url} is to be in the environment variable {server.key}, which is "
            "empty: export it before the run"
        )
    return found


def _wait_of(header: str) -> float:
    """The seconds that a server asks to wait, at most a quarter of an hour."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(header)
        except (TypeError, ValueError):
            return 0.0
        seconds = at.timestamp() - time.time()
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else 0.0


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it has the number {name}")
