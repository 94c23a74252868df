"""Spring Authorization Server 7, as its starter configures it: of all stock servers here the one that nests ``act``.

Stock it ignores ``audience``, and its tokens outlive the one that they were exchanged for. Customized, an
``OAuth2TokenCustomizer`` of ours, the framework's own extension point, mends these two.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.integration.world import free_port
from tests.interop.sts_servers.builds import HERE, maven, not_on_path
from tests.interop.sts_servers.login import log_in
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

_SOURCES: Final = HERE / "spring"
_START_S: Final = 90.0  # 3 s on an idle machine
_JAVA: Final = ("java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
_NOBODY: Final = "http://127.0.0.1:9/"
MAY_ACT_OBJECT: Final = "plan.make"
MAY_ACT_TEXT: Final = "docs.write"
_CLIENTS: Final = [Client(name, f"secret of {name}", ClientAuth.BASIC) for name in (FRONT, ENTRY, PLANNER, WRITER)]


def prepare() -> Path:
    """Return the folder of ``sts.jar``."""
    return maven("spring", _SOURCES, "sts.build")


@asynccontextmanager
async def start(
    folder: Path, *, customized: bool, names_client: bool = False, may_act: bool = False, keys: str = _NOBODY
) -> AsyncIterator[Server]:
    """Run it. ``keys`` is the URL of the agents' keys, for those that authenticate by a signed assertion.

    ``names_client``: the customizer writes the client into each token, and nothing else. ``may_act``: it writes that
    claim for the planner into a login's token, and nothing else: its issuer as the framework's own object where the
    login's scopes have MAY_ACT_OBJECT, as a text where they have MAY_ACT_TEXT.
    """
    port = free_port()
    mode = "client" if names_client else "may-act" if may_act else str(customized).lower()
    issuer = f"http://127.0.0.1:{port}"
    words: list[str | Path] = [*_JAVA, "-jar", prepare() / "sts.jar", f"--server.port={port}", f"--sts.keys={keys}"]
    words += [f"--spring.security.oauth2.authorizationserver.issuer={issuer}", f"--sts.customize={mode}"]
    metadata = f"{issuer}/.well-known/oauth-authorization-server"
    log = folder / "spring.log"
    async with (
        client_session() as session,
        running(words, log=log, ready=metadata, session=session, start_s=_START_S),
    ):
        front, entry, planner, writer = _CLIENTS

        async def subject_token(user: str, scopes: tuple[str, ...]) -> str:
            members = await log_in(
                session, front, authorization_endpoint=f"{issuer}/oauth2/authorize",
                token_endpoint=f"{issuer}/oauth2/token", user=user, password=f"of {user}", scope=" ".join(scopes),
            )  # fmt: skip
            return str(members["access_token"])

        async def actor_token(client: Client) -> str:
            return await server.own_token(client)

        server = Server(
            name="spring-customized" if customized else "spring",
            issuer=issuer,
            metadata=metadata,
            token_endpoint=f"{issuer}/oauth2/token",
            jwks=f"{issuer}/oauth2/jwks",
            front=front,
            entry=entry,
            planner=planner,
            writer=writer,
            audiences=(PLANNER, WRITER, CRM),
            scopes=SCOPES,
            subject_token=subject_token,
            actor_token=actor_token,
            session=session,
        )
        yield server


def _launcher(name: str, *, customized: bool) -> Launcher:
    return Launcher(
        name=name, lacking=lambda: not_on_path(["java", "mvn"]), prepare=prepare,
        start=partial(start, customized=customized),
    )  # fmt: skip


STOCK: Final = _launcher("spring", customized=False)
CUSTOMIZED: Final = _launcher("spring-customized", customized=True)
