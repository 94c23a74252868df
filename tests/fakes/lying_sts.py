"""A token service with the issuer's real key that lies where a test asks for it. `lies.py` holds the lies."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

from delegation_core.errors import SidecarError
from sidecar.identity.endpoint import EndpointAnswer
from tests.fakes.conversations import listening
from tests.fakes.tokens import ABSENT, NOW, WRITER, TokenMint, changed, encode, from_base64url

Form = dict[str, str]

SECRET: Final = "s3cret-of-the-sts"  # in every text of the STS; it must not come out anywhere
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    body: bytes = b"{}"


@dataclass
class LyingSts:
    """Answers each exchange by its ``behaviour``; also a `Caller` without a network."""

    mint: TokenMint = field(default_factory=TokenMint)
    behaviour: Callable[[LyingSts, Form], Reply] = field(default_factory=lambda: honest)
    errors: list[SidecarError] = field(default_factory=list)  # failures of the next calls, before any answer
    forms: list[Form] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    subjects: list[Hashable] = field(default_factory=list)  # whom the forms were for
    closed: bool = False
    clock: Callable[[], int] = lambda: NOW

    def __post_init__(self) -> None:
        self.asked = asyncio.Condition()
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    def hold(self) -> None:
        """Keep answers back until ``release``."""
        self._may_answer.clear()

    def release(self) -> None:
        self._may_answer.set()

    async def wait_for_requests(self, count: int) -> None:
        async with asyncio.timeout(5), self.asked:
            await self.asked.wait_for(lambda: len(self.forms) >= count)

    async def reply(self, form: bytes) -> Reply:
        parsed = {name: values[-1] for name, values in parse_qs(form.decode()).items()}
        async with self.asked:
            self.forms.append(parsed)
            self.asked.notify_all()
        await self._may_answer.wait()
        return self.behaviour(self, parsed)

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        self.authorizations.append(authorization)
        self.subjects.append(subject)
        reply = await self.reply(form)
        if self.errors:
            raise self.errors.pop(0)
        headers = dict(reply.headers)
        return EndpointAnswer(reply.status, headers.get("Content-Type"), headers.get("Cache-Control"), reply.body)

    async def close(self) -> None:
        self.closed = True

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        """Return the claims of an honest STS, changed."""
        subject = json.loads(from_base64url(form["subject_token"].split(".")[1]))
        lawful = {
            "iss": self.mint.issuer,
            "sub": subject["sub"],
            "aud": form["audience"],
            "client_id": str(WRITER),
            "scope": form["scope"],
            "iat": self.clock(),
            "exp": subject["exp"],
            "jti": f"issued-{len(self.forms)}",
            "parent_jti": subject.get("jti", ABSENT),
            "txn": subject.get("txn", ABSENT),
            "sub_id": subject.get("sub_id", ABSENT),
            "auth_time": subject.get("auth_time", ABSENT),
            "acr": subject.get("acr", ABSENT),
            "act": {"sub": str(WRITER), "act": subject["act"]} if "act" in subject else {"sub": str(WRITER)},
        }
        return changed(lawful, changes)

    def members(self, form: Form, token: str, **changes: object) -> dict[str, object]:
        """Return the members of an honest answer, changed."""
        lawful = {
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 290,
            "scope": form["scope"],
        }
        return changed(lawful, changes)


Behaviour = Callable[[LyingSts, Form], Reply]


def honest(sts: LyingSts, form: Form) -> Reply:
    return Reply(body=encode(sts.members(form, sts.mint.mint(sts.claims(form)))))


Wire = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


async def tell_all(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)


@dataclass
class Server:
    """A `LyingSts` on a real connection, whose bytes are sent as ``wire`` says. It then closes, unless it ``keeps``."""

    sts: LyingSts
    url: str = ""
    wire: Wire = tell_all
    keeps: bool = False
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                answer = await self.sts.reply(await reader.readexactly(length))
                await self.wire(writer, encode_reply(answer))
                await writer.drain()
                if not self.keeps:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client gave up
        finally:
            writer.close()


def encode_reply(answer: Reply) -> bytes:
    fields = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode() + answer.body


@asynccontextmanager
async def serving(sts: LyingSts, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on a free port of loopback, until the block ends."""
    server = Server(sts)
    async with listening(server.serve, ssl=tls) as port:
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/token"
        yield server
