"""A real Keycloak for tests: its process, and a realm of two users, made by its admin API.

``KEYCLOAK_HOME`` is an unpacked distribution; ``make interop-keycloak`` gets one by Maven. It needs Java 17 or newer,
and half a minute to start.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.integration.world import free_port

START_S: Final = 180.0
CLIENT_ID: Final = "front-app"
SECRET: Final = "of the front app"
_USERS: Final = ("alice", "bob")
_HEAP: Final = "-Xms64m -Xmx256m"


@dataclass(frozen=True, slots=True)
class Login:
    """One login of a user: the access token that the front app holds, and what it logs out with."""

    access_token: str
    refresh_token: str


class Keycloak:
    """A running Keycloak whose realm ``lab`` sends back-channel logouts to ``events_url``.

    Its front app's users come back to ``redirect_uri`` after a login in a browser.
    """

    def __init__(
        self, base: str, events_url: str, session: aiohttp.ClientSession, *, redirect_uri: str | None = None
    ) -> None:
        self.base = base
        self.issuer = f"{base}/realms/lab"
        self.jwks = f"{self.issuer}/protocol/openid-connect/certs"
        self.authorization_endpoint = f"{self.issuer}/protocol/openid-connect/auth"
        self.token_endpoint = f"{self.issuer}/protocol/openid-connect/token"
        self.session = session
        self._events_url = events_url
        self._redirect_uri = redirect_uri

    async def until_ready(self, process: Process, log: Path) -> None:
        async with asyncio.timeout(START_S):
            while True:
                assert process.returncode is None, f"it ended: see {log}"
                try:
                    async with self.session.get(f"{self.base}/realms/master") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.5)

    async def make_realm(self) -> None:
        """Make the realm as an administrator would: one client with the URL of the token service's listener."""
        client = {
            "clientId": CLIENT_ID,
            "secret": SECRET,
            "directAccessGrantsEnabled": True,
            "redirectUris": [self._redirect_uri] if self._redirect_uri else [],
            "attributes": {
                "backchannel.logout.url": self._events_url,
                "backchannel.logout.session.required": "true",
            },
        }
        users = [
            {
                "username": name,
                "enabled": True,
                "email": f"{name}@lab.test",
                "emailVerified": True,
                "firstName": name,
                "lastName": name,
                "credentials": [{"type": "password", "value": f"of {name}", "temporary": False}],
            }
            for name in _USERS
        ]
        realm = {"realm": "lab", "enabled": True, "clients": [client], "users": users}
        await self._ask("POST", "/admin/realms", 201, json=realm, headers=await self._admin())

    async def administer(self, method: str, path: str, content: object = None, *, status: int = 201) -> Any:
        """Make a call of the admin API below the realm; return its answer."""
        about: dict[str, Any] = {} if content is None else {"json": content}
        return await self._ask(method, f"/admin/realms/lab{path}", status, headers=await self._admin(), **about)

    async def log_in(self, user: str) -> Login:
        answer = await self._ask("POST", "/realms/lab/protocol/openid-connect/token", 200, data={
            "grant_type": "password", "client_id": CLIENT_ID, "client_secret": SECRET, "username": user,
            "password": f"of {user}", "scope": "openid",
        })  # fmt: skip
        return Login(answer["access_token"], answer["refresh_token"])

    async def log_out(self, login: Login) -> None:
        """End one session, as the front app does when its user logs out."""
        form = {"client_id": CLIENT_ID, "client_secret": SECRET, "refresh_token": login.refresh_token}
        await self._ask("POST", "/realms/lab/protocol/openid-connect/logout", 204, data=form)

    async def end_sessions_of(self, user: str) -> None:
        """End all sessions of a user, as an administrator does."""
        (found,) = await self.administer("GET", f"/users?exact=true&username={user}", status=200)
        await self.administer("POST", f"/users/{found['id']}/logout", status=204)

    async def _admin(self) -> dict[str, str]:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        answer = await self._ask("POST", "/realms/master/protocol/openid-connect/token", 200, data=form)
        return {"authorization": f"Bearer {answer['access_token']}"}

    async def _ask(self, method: str, path: str, status: int, **content: Any) -> Any:
        async with self.session.request(method, f"{self.base}{path}", **content) as answer:
            body = await answer.text()
            assert answer.status == status, (path, answer.status, body)
            return json.loads(body) if body else None


def lacking() -> str | None:
    """Return what a Keycloak here lacks; None: nothing."""
    home = os.environ.get("KEYCLOAK_HOME")
    if not home or not Path(home, "bin", "kc.sh").is_file():
        return "KEYCLOAK_HOME names no unpacked Keycloak"
    return None if shutil.which("java") else "java is not on PATH"


@asynccontextmanager
async def running(
    folder: Path, events_url: str, *, redirect_uri: str | None = None, features: str = ""
) -> AsyncIterator[Keycloak]:
    """Run a Keycloak that keeps everything in memory, with its realm. ``features`` are previews to switch on."""
    port, management = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin",
        "JAVA_OPTS_KC_HEAP": _HEAP,
        "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",
    }
    words = [
        str(Path(os.environ["KEYCLOAK_HOME"], "bin", "kc.sh")), "start-dev", "--db=dev-mem", "--http-host=127.0.0.1",
        f"--http-port={port}", f"--http-management-port={management}", f"--hostname={base}",
        *([f"--features={features}"] if features else []),
    ]  # fmt: skip
    log = folder / "keycloak.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        # These are calls of a browser and an administrator, none of the product's: the jar drops no cookie of http.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            keycloak = Keycloak(base, events_url, session, redirect_uri=redirect_uri)
            await keycloak.until_ready(process, log)
            await keycloak.make_realm()
            yield keycloak
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # kc.sh may wait for java, or have become it
        await process.wait()
