"""For grpclib: ``keep_handle(server)``, and ``channel()`` to the sidecar."""

from __future__ import annotations

from typing import Any, Final

from grpclib.client import Channel
from grpclib.events import RecvRequest, SendRequest, listen
from grpclib.server import Server

from delegation_agent.handles import HEADER, handle, serving, sole
from delegation_agent.outbound import Outbound

_NAME: Final = HEADER.lower()


def keep_handle(server: Server) -> None:
    """Install handles in a server: it serves each call with the call's own handle, or with none."""
    listen(server, RecvRequest, _serve)


def channel(*, outbound: str | None = None, **options: Any) -> Channel:
    """Open a channel to the sidecar that sends the handle with each call. Options are those of ``Channel``.

    grpclib sends the sidecar's own address as the authority, so the outbound route matches by its prefix.

    Raises:
        ConfigurationError: see ``Outbound``.
    """
    host, port = Outbound(outbound).address
    opened = Channel(host, port, **options)
    listen(opened, SendRequest, _show)
    return opened


async def _serve(call: RecvRequest) -> None:
    held, method = sole(map(str, call.metadata.getall(_NAME, []))), call.method_func

    async def served(stream: Any) -> None:
        with serving(held):
            await method(stream)

    call.method_func = served


async def _show(call: SendRequest) -> None:
    held = handle()
    if held is not None and _NAME not in call.metadata:
        call.metadata[_NAME] = held
