"""``sidecar dev user-issuer``: an issuer where test users log in, for development only.

It replaces a company's identity provider: ``/.well-known/openid-configuration``, ``/jwks``, ``/authorize`` for a
browser, and ``/token``, which returns an ID token and an access token for a code, or for a name (and a password, if the
user has one). It listens on loopback; with a certificate from a Workload API also on a network of containers, by https.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from delegation_core.console.examples import add_examples
from delegation_core.errors import ConfigError, Problem
from sidecar.background import PartEndedError, Parts
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar_dev.login import MAX_FORM_BYTES, LoginError, LoginSettings, UserIssuer
from sidecar_dev.login_tls import certified

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store"}
_SHUTDOWN_S: Final = 2.0
_PAGE: Final = (  # the form is posted to the same URL, whose query is the request
    "<!doctype html><title>Log in</title><form method=post><p>Development only.</p>"
    "<input name=username placeholder=name><input name=password type=password placeholder=password>"
    "<button>Log in</button></form>"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(parser, "sidecar dev user-issuer --user alice --user bob:secret --client shop")
    parser.add_argument(
        "--listen", default="127.0.0.1:7300", metavar="HOST:PORT", help="a loopback address (default %(default)s)"
    )
    parser.add_argument(
        "--workload-api", metavar="URI", help="serve https with the X.509-SVID from here, on any address"
    )
    parser.add_argument("--issuer", metavar="URL", help="the name it then goes by, such as https://login:7300")
    parser.add_argument(
        "--user", required=True, action="append", metavar="NAME[:PASSWORD]", help="who may log in; may be given again"
    )
    parser.add_argument(
        "--client", required=True, action="append", metavar="ID", help="an OAuth client; may be given again"
    )
    parser.add_argument("--life", type=int, default=3600, metavar="SECONDS", help="of a token (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. SIGUSR1 rotates the key.

    Exit codes: 0 ended, 1 the Workload API can no longer be followed, 2 unusable arguments or address.
    """
    try:
        settings, secured = _settings(arguments), _secure(arguments)
        listener = loopback_listener(arguments.listen) if secured is None else network_listener(arguments.listen)
        asyncio.run(_serve(settings, listener, secured))
    except ConfigError as error:
        _say(str(error))
        return 2
    except PartEndedError as error:
        _say(str(error))
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class Secured:
    """Settings for an issuer beyond loopback: an identity to serve https with, and the issuer's URL."""

    workload_api: WorkloadApiSettings
    issuer: str


def loopback_listener(address: str) -> socket.socket:
    """Return a listening socket on ``HOST:PORT``; port 0: any free port.

    Raises:
        ConfigError: the address is malformed, is not on loopback, or cannot be bound.
    """
    ip, port = _address(address)
    if not ip.is_loopback:
        raise ConfigError([Problem("--listen", "a development issuer is for loopback only", "write 127.0.0.1:PORT")])
    return _listening(ip, port)


def network_listener(address: str) -> socket.socket:
    """Return a listening socket on any address of this machine; otherwise as ``loopback_listener``.

    Raises:
        ConfigError: the address is malformed, or cannot be bound.
    """
    return _listening(*_address(address))


def _address(text: str) -> tuple[IpAddress, int]:
    host, _, port = text.rpartition(":")
    try:
        ip, number = ipaddress.ip_address(host.strip("[]")), int(port)
    except ValueError as error:
        raise ConfigError(
            [Problem("--listen", "it is not an address", "write 127.0.0.1:PORT or [::1]:PORT")]
        ) from error
    if not 0 <= number <= 65535:
        raise ConfigError([Problem("--listen", "it is not a port number", "write 1 to 65535, or 0 for a free port")])
    return ip, number


def _listening(ip: IpAddress, port: int) -> socket.socket:
    try:
        return socket.create_server((str(ip), port), family=socket.AF_INET6 if ip.version == 6 else socket.AF_INET)
    except OSError as error:
        raise ConfigError([Problem("--listen", "cannot bind the address", "choose a free port")]) from error


@contextlib.asynccontextmanager
async def serving(
    settings: LoginSettings,
    listener: socket.socket,
    *,
    url: str | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[UserIssuer]:
    """Serve on the socket inside the context. The issuer's URL is ``url``, or the socket's address."""
    host, port = listener.getsockname()[:2]
    url = url or (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    authority = urlsplit(url).netloc
    issuer = UserIssuer(url, settings)
    runner = web.AppRunner(_application(issuer, authority), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=context).start()
        yield issuer
    finally:
        await runner.cleanup()


def _application(issuer: UserIssuer, authority: str) -> web.Application:
    async def metadata(_: web.Request) -> web.Response:
        return web.json_response(issuer.metadata())

    async def jwks(_: web.Request) -> web.Response:
        return web.json_response(issuer.jwks())

    async def token(request: web.Request) -> web.Response:
        if request.content_type != _FORM:
            return _refuse("invalid_request")
        try:
            return web.json_response(issuer.log_in(await request.read()), headers=_NO_STORE)
        except LoginError as error:
            return _refuse(error.code)

    async def ask(request: web.Request) -> web.Response:
        try:
            issuer.asked(request.query_string)
        except LoginError as error:
            return _refuse(error.code)
        return web.Response(text=_PAGE, content_type="text/html", headers=_NO_STORE)

    async def let_in(request: web.Request) -> web.Response:
        if request.content_type != _FORM:
            return _refuse("invalid_request")
        try:
            back = issuer.let_in(issuer.asked(request.query_string), await request.read())
        except LoginError as error:
            return _refuse(error.code)
        return web.Response(status=302, headers={**_NO_STORE, "Location": back})

    application = web.Application(client_max_size=MAX_FORM_BYTES, middlewares=[_only_for(authority)])
    application.router.add_get("/.well-known/openid-configuration", metadata)
    application.router.add_get("/jwks", jwks)
    application.router.add_get("/authorize", ask)
    application.router.add_post("/authorize", let_in)
    application.router.add_post("/token", token)
    return application


def _only_for(authority: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Make a middleware that refuses other host names, against DNS rebinding of a web page to 127.0.0.1."""

    @web.middleware
    async def check_host(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.host != authority:
            return _refuse("invalid_request")
        return await handler(request)

    return check_host


def _refuse(code: str) -> web.Response:
    return web.json_response({"error": code}, status=401 if code == "invalid_client" else 400, headers=_NO_STORE)


async def _serve(settings: LoginSettings, listener: socket.socket, secured: Secured | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set)
    background = Parts()
    async with contextlib.AsyncExitStack() as stack:
        options: dict[str, Any] = {}
        if secured is not None:
            context = await stack.enter_async_context(certified(secured.workload_api, background))
            options = {"url": secured.issuer, "context": context}
        issuer = await stack.enter_async_context(serving(settings, listener, **options))
        loop.add_signal_handler(signal.SIGUSR1, issuer.rotate)
        _say("WARNING: DEVELOPMENT ONLY: whoever knows a user's name is that user")
        _say(f"issuer {issuer.issuer}")
        await background.run_until(ended)


def _settings(arguments: argparse.Namespace) -> LoginSettings:
    pairs = [_user(text) for text in arguments.user]
    problems = []
    if len(dict(pairs)) < len(pairs) or not _are_names([name for name, _ in pairs]):
        problems.append(Problem("--user", "a name is empty, doubled or not plain ASCII", "write NAME or NAME:PASSWORD"))
    if not _are_names(arguments.client):
        problems.append(Problem("--client", "an id is empty or not plain ASCII", "write a name such as front"))
    if not 1 <= arguments.life <= 86400:
        problems.append(Problem("--life", "it is out of range", "write 1 to 86400 seconds"))
    if problems:
        raise ConfigError(problems)
    return LoginSettings(users=dict(pairs), clients=frozenset(arguments.client), life_s=arguments.life)


def _secure(arguments: argparse.Namespace) -> Secured | None:
    if arguments.workload_api is None and arguments.issuer is None:
        return None
    if arguments.workload_api is None or arguments.issuer is None:
        raise ConfigError([Problem("--issuer", "comes with --workload-api, and only so", "give both, or neither")])
    parts = urlsplit(arguments.issuer)
    if parts.scheme != "https" or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ConfigError([Problem("--issuer", "is not an https origin", "write https://HOST:PORT")])
    try:
        return Secured(WorkloadApiSettings(address=arguments.workload_api), arguments.issuer)
    except ValueError as error:
        raise ConfigError([Problem("--workload-api", str(error), "write unix:///PATH")]) from error


def _user(text: str) -> tuple[str, str | None]:
    name, colon, password = text.partition(":")
    return name, password if colon else None


def _are_names(texts: Sequence[str]) -> bool:
    return all(text and text.isascii() and text.isprintable() for text in texts)


def _say(line: str) -> None:
    sys.stderr.write(f"sidecar dev user-issuer: {line}\n")
    sys.stderr.flush()
