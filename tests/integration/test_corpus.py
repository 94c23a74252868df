"""Raw messages to both listeners of a running sidecar, and raw answers of both upstreams, from ``tests/corpus``.

The upstream is read byte by byte: a forwarded request arrives once and canonical, a refused one does not arrive. After
every message an ordinary request is served.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from sidecar.identity.tls import server_context
from tests.corpus import Case, Words, cases
from tests.integration.hops import Hops
from tests.integration.world import CRM, PATIENCE_S, PLANNER, mint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]  # hundreds of connections each

DONE: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"
FILES: Final = {
    "name": "files",
    "match": {"path_prefix": "/files", "methods": ["GET", "PUT"]},
    "scopes": ["docs.write"],
    "peers": [str(PLANNER)],
}
TUNNEL: Final = {"name": "tunnel", "match": {"host": "tool.example:443"}, "token": "connect"}


class CutShortError(Exception):
    """The answer looks truncated."""


@dataclass
class Upstream:
    """Records its requests, ``(head, body)``, and answers each with exactly the octets of ``answer``."""

    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    answer: bytes = DONE
    hangs_up: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.seen.append((head, await _request_body(reader, head)))
                writer.write(self.answer)
                await writer.drain()
                if self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


async def _request_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    fields = _fields(head)
    if "transfer-encoding: chunked" in fields:
        return await _chunks(reader)
    lengths = [line.partition(": ")[2] for line in fields if line.startswith("content-length: ")]
    return await reader.readexactly(int(lengths[0])) if lengths else b""


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n", "a trailer came through"
    return body


def _fields(head: bytes) -> list[str]:
    return head.decode("latin-1").split("\r\n")[1:-2]


@dataclass(frozen=True)
class Given:
    """One answer as its caller reads it."""

    status: int
    fields: list[str]
    content: bytes

    @property
    def reason(self) -> str | None:
        found = [line.partition(": ")[2] for line in self.fields if line.startswith("delegation-reason: ")]
        return found[0] if found else None


async def read_answer(reader: asyncio.StreamReader, method: str) -> Given:
    """Return the next answer. Raises CutShortError if it ends early."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, fields = int(head.split(b" ")[1]), _fields(head)
        if method == "HEAD" or status in {100, 204, 304}:
            return Given(status, fields, b"")
        if "transfer-encoding: chunked" in fields:
            return Given(status, fields, await _chunks(reader))
        lengths = [line.partition(": ")[2] for line in fields if line.startswith("content-length: ")]
        assert len(lengths) < 2
        content = await (reader.readexactly(int(lengths[0])) if lengths else reader.read())
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
        raise CutShortError from error
    return Given(status, fields, content)


async def _is_cut(reader: asyncio.StreamReader, method: str) -> bool:
    try:
        await read_answer(reader, method)
    except CutShortError:
        return True
    return False


async def _ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the bytes until the other end closes."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.close()


class Side:
    """One listener and the upstream behind it. ``prior``: a caller may begin with HTTP/2 by prior knowledge."""

    def __init__(
        self, port: int, tls: ssl.SSLContext | None, upstream: Upstream, words: Words, *, prior: bool = False
    ) -> None:
        self._prior = prior
        self.upstream = upstream
        self.words = words
        self.endings: dict[str, asyncio.Task[bytes]] = {}  # a connection over TLS lingers a while before it ends
        self._port = port
        self._tls = tls
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname="sidecar" if self._tls else None
        )
        self._writers.append(writer)
        return reader, writer

    def close(self) -> None:
        """Close every connection, also that of a failed case."""
        for writer in self._writers:
            writer.close()

    async def serves(self) -> bool:
        """Tell if an ordinary request is served."""
        self.upstream.answer, self.upstream.hangs_up = DONE, False
        reader, writer = await self.connect()
        writer.write(self.words.fill("{get}"))
        given = await read_answer(reader, "GET")
        writer.transport.abort()
        return (given.status, given.content) == (200, b"done")

    async def run(self, case: Case) -> None:
        """Send one message, and compare the result with the case."""
        row, upstream = case.row, self.upstream
        upstream.answer = self.words.fill(row["answer"]) if "answer" in row else DONE
        upstream.hangs_up = row.get("hangs_up", False)
        before = len(upstream.seen)
        reader, writer = await self.connect()
        writer.write(case.message(self.words))
        if self._prior and row.get("unversioned"):
            assert await reader.read() == b""
            assert len(upstream.seen) == before
            return
        given = await self._answers(case, reader)
        if "then" in row:
            writer.write(self.words.fill(row["then"]))
            last = await read_answer(reader, "GET")
            assert last.status == row["finally"]
            given.append(last)
        if case.keeps:
            self.upstream.answer, self.upstream.hangs_up = DONE, False
            writer.write(self.words.fill("{get}"))
            assert (await read_answer(reader, "GET")).content == b"done"
            self.upstream.seen.pop()
        if case.keeps is False:
            self.endings[case.name] = asyncio.ensure_future(_ending(reader, writer))
        else:
            writer.transport.abort()
        if not row.get("cut"):
            self._check_answer(case, given[0])
        self._check_seen(case, upstream.seen[before:])
        assert await self.serves()

    async def _answers(self, case: Case, reader: asyncio.StreamReader) -> list[Given]:
        given = []
        for told, method in zip(case.told, case.methods, strict=False):
            if case.row.get("cut"):
                assert await _is_cut(reader, method)
                break
            answer = await read_answer(reader, method)
            assert (answer.status, answer.reason) in told.choices
            given.append(answer)
        return given

    def _check_answer(self, case: Case, given: Given) -> None:
        row = case.row
        if "content" in row:
            assert given.content == row["content"].encode("latin-1")
        for line in row.get("gives", []):
            assert line in given.fields
        names = [line.partition(":")[0] for line in given.fields]
        assert not set(row.get("gives_not", [])) & set(names) - {"connection"}
        said = "".join(given.fields).encode("latin-1") + given.content
        assert "never_says" not in row or row["never_says"].encode() not in said

    def _check_seen(self, case: Case, seen: list[tuple[bytes, bytes]]) -> None:
        row = case.row
        wanted = 1 if "then" in row else sum(told.forwarded for told in case.told)
        if "answer" in row:
            assert len(seen) >= 1
        elif all(told.forwarded == told.maybe_forwarded for told in case.told):
            assert len(seen) == wanted
        if not seen:
            return
        head, body = seen[0]
        line, fields = head.split(b"\r\n")[0].decode("latin-1"), _fields(head)
        names = [one.partition(":")[0] for one in fields]
        assert line.endswith(" HTTP/1.1")
        assert names == [name.lower() for name in names]
        assert names.count("host") == 1
        assert len([name for name in names if name in {"content-length", "transfer-encoding"}]) <= 1
        if "target" in row:
            assert line.split(" ")[1] == row["target"]
        if "payload" in row:
            assert body == row["payload"].encode("latin-1")
        for one in row.get("has", []):
            assert one in fields
        assert not set(row.get("has_name", [])) - set(names)
        assert not set(row.get("lacks", [])) & set(names)
        assert "lacks_text" not in row or row["lacks_text"].encode() not in head


async def all_hold(side: Side, rows: list[Case]) -> None:
    """Run every case; report all failures together."""
    failed = []
    for case in rows:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await side.run(case)
        except (AssertionError, CutShortError, TimeoutError) as error:
            failed.append(f"{case.name}: {type(error).__name__} {str(error).partition(chr(10))[0]}")
    rests = await asyncio.gather(*side.endings.values(), return_exceptions=True)
    side.close()
    failed += [f"{name}: goes on with {rest!r}" for name, rest in zip(side.endings, rests, strict=True) if rest != b""]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


@pytest.fixture
async def inbound(hops: Hops) -> Side:
    return await inbound_side(hops)


async def inbound_side(hops: Hops, **changes: Any) -> Side:
    """Return the peers' side."""
    upstream = Upstream()
    hops.agent.port = await hops.world.listen(upstream.serve)
    settings = hops.settings()
    settings["inbound"]["routes"].append(FILES)
    await hops.start(inbound=settings["inbound"], **changes)
    words = Words(path="/draft", escaped_path="/%64raft", host="a", token=mint())
    return Side(hops.writer.inbound, hops.planner, upstream, words)


@asynccontextmanager
async def outbound_side(hops: Hops, **changes: Any) -> AsyncIterator[Side]:
    """Return the agent's side, during a request whose handle may be used without limit."""
    upstream = Upstream()
    tls = server_context(await hops.world.source(CRM))
    hops.ports["crm"] = await hops.world.listen(upstream.serve, ssl=tls)
    settings = hops.settings(route={"max_calls": 1_000_000})
    settings["outbound"]["routes"].append(TUNNEL)
    await hops.start(inbound=settings["inbound"], outbound=settings["outbound"], **changes)
    async with hops.serving() as held:
        port = hops.writer.outbound
        words = Words(path="/crm/draft", escaped_path="/%63rm/draft", host=f"127.0.0.1:{port}", token=held.handle)
        yield Side(port, None, upstream, words, prior="protocols" in changes)


@pytest.mark.parametrize("name", ["requests", "inbound", "answers"])
async def test_what_a_peer_sends_is_served_canonical_or_refused_by_its_name(inbound: Side, name: str) -> None:
    await all_hold(inbound, cases(name, "inbound"))


@pytest.mark.parametrize("name", ["requests", "outbound", "answers"])
async def test_what_an_agent_sends_is_served_canonical_or_refused_by_its_name(hops: Hops, name: str) -> None:
    async with outbound_side(hops) as side:
        await all_hold(side, cases(name, "outbound"))


@pytest.mark.parametrize("side", ["inbound", "outbound"])
async def test_requests_of_http_1_are_read_the_same_where_http2_is_on(hops: Hops, side: str) -> None:
    protocols = {"http2": True}
    if side == "inbound":
        await all_hold(await inbound_side(hops, protocols=protocols), cases("requests", side))
    else:
        async with outbound_side(hops, protocols=protocols) as opened:
            await all_hold(opened, cases("requests", side))


def test_the_corpus_is_as_large_as_it_says() -> None:
    sides = [("requests", "inbound"), ("requests", "outbound"), ("answers", "inbound"), ("answers", "outbound")]
    sides += [("inbound", "inbound"), ("outbound", "outbound")]
    assert sum(len(cases(name, side)) for name, side in sides) >= 900
