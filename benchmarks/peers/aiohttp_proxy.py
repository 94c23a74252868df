"""The proxy that any Python engineer would write: aiohttp on both sides, PyJWT, JSON lines. Run as a program.

It does as much of the sidecar's job as an afternoon allows: mTLS, the caller from the URI SAN, the token verified,
``act`` compared with the caller, a scope, the identity headers replaced, one line of log.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import time
from typing import Any, Final

import jwt
import orjson
import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "authorization"}
)


class Proxy:
    """Verifies, forwards, logs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        with open(arguments.public_key, "rb") as file:  # noqa: PTH123 - as one would write it
            self._key = file.read()
        self._issuer, self._audience, self._scope = arguments.issuer, arguments.audience, arguments.scope
        self._upstream = arguments.upstream
        self._verified: dict[str, dict[str, Any]] | None = {} if arguments.cache else None
        self._session: ClientSession | None = None

    async def start(self, _: web.Application) -> None:
        """Open the pool to the agent."""
        self._session = ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), auto_decompress=False
        )

    async def stop(self, _: web.Application) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    def _claims(self, token: str) -> dict[str, Any]:
        if self._verified is not None and (known := self._verified.get(token)) is not None:
            if known["exp"] <= time.time():
                raise jwt.ExpiredSignatureError
            return known
        claims = jwt.decode(token, self._key, algorithms=["ES256"], audience=self._audience, issuer=self._issuer)
        if self._verified is not None:
            if len(self._verified) > 8192:
                self._verified.clear()
            self._verified[token] = claims
        return claims

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle one request."""
        started = time.monotonic()
        certificate = request.get_extra_info("peercert") or {}
        peer = next((value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"), "")
        status, subject = 401, None
        try:
            claims = self._claims(request.headers.get("Authorization", "").removeprefix("Bearer "))
            subject = claims["sub"]
            if claims["act"]["sub"] != peer or self._scope not in claims["scope"].split():
                status = 403
                return web.Response(status=403)
            response = await self._forward(request, subject, peer)
            status = response.status
        except (jwt.PyJWTError, KeyError):
            return web.Response(status=401)
        else:
            return response
        finally:
            line = {"ts": time.time(), "peer": peer, "subject": subject, "method": request.method}
            line |= {"path": request.path, "status": status, "total_ms": (time.monotonic() - started) * 1000}
            sys.stdout.buffer.write(orjson.dumps(line) + b"\n")

    async def _forward(self, request: web.Request, subject: str, peer: str) -> web.StreamResponse:
        assert self._session is not None  # noqa: S101 - for the type checker
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers |= {"Delegation-Subject": subject, "Delegation-Actor": peer}
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, f"{self._upstream}{request.path_qs}", headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    for name in ("port", "certificate", "key", "bundle", "public-key", "issuer", "audience", "scope", "upstream"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cache", action="store_true")
    arguments = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(arguments.certificate, arguments.key)
    proxy = Proxy(arguments)
    application = web.Application(client_max_size=2**40)
    application.on_startup.append(proxy.start)
    application.on_cleanup.append(proxy.stop)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(
        application,
        host="127.0.0.1",
        port=int(arguments.port),
        ssl_context=context,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
        keepalive_timeout=300,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
