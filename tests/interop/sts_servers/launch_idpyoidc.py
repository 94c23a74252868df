"""idpyoidc, a Python library for authorization servers, in a virtual environment of its own.

It refuses ``actor_token`` and issues no ``act``: a server that is honest about its limits. It needs nothing but pip.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.integration.world import free_port
from tests.interop.sts_servers.builds import HERE, python
from tests.interop.sts_servers.process import client_session, running
from tests.interop.sts_servers.server import (
    CRM,
    ENTRY,
    FRONT,
    PLANNER,
    SCOPES,
    WRITER,
    Client,
    ClientAuth,
    Launcher,
    Server,
)

# It compares the two halves of a Basic field as they come, unescaped: an identifier with a colon goes into the body.
_CLIENTS: Final = [Client(name, f"secret of {name}", ClientAuth.POST) for name in (FRONT, ENTRY, PLANNER, WRITER)]


@asynccontextmanager
async def start(folder: Path) -> AsyncIterator[Server]:
    """Run it."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    known = {
        "clients": {client.client_id: client.secret for client in _CLIENTS},
        "audiences": [PLANNER, WRITER, CRM],
        "scopes": SCOPES,
    }
    settings = folder / "idpyoidc.json"
    settings.write_text(json.dumps(known))
    words: list[str | Path] = [python(), HERE / "idpyoidc_app.py", str(port), settings]
    metadata = f"{issuer}/.well-known/openid-configuration"
    async with (
        client_session() as session,
        running(words, log=folder / "idpyoidc.log", ready=metadata, session=session),
    ):
        front, entry, planner, writer = _CLIENTS

        async def subject_token(user: str, scopes: tuple[str, ...]) -> str:
            form = {"user": user, "client_id": front.client_id, "scope": " ".join(scopes)}
            async with session.post(f"{issuer}/seed", data=form) as answer:
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["access_token"])

        yield Server(
            name="idpyoidc",
            issuer=issuer,
            metadata=metadata,
            token_endpoint=f"{issuer}/token",
            jwks=f"{issuer}/jwks.json",
            front=front,
            entry=entry,
            planner=planner,
            writer=writer,
            audiences=(PLANNER, WRITER, CRM),
            scopes=SCOPES,
            subject_token=subject_token,
            actor_token=None,
            session=session,
        )


LAUNCHER: Final = Launcher(name="idpyoidc", lacking=lambda: None, prepare=python, start=start)
