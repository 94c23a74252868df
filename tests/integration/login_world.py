"""A front app whose users log in at a token service: its sidecar, that service, and the agent that it may call."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import yaml

from sidecar.reload import Reload
from tests.fakes.user_server import UserServer, user_server
from tests.integration.test_reload import load_here
from tests.integration.world import FRONT, PLANNER, Answer, Sidecar, World, bearer, free_port, loaded_from, open_world

CALLBACK: Final = "https://app.acme.example/callback"
SESSION: Final = "browser-session-of-alice"
SCOPES: Final = ["docs.write", "crm.read"]

Settings = dict[str, Any]


class LoginWorld:
    """``front`` is the entry, ``planner`` the sidecar of the agent behind it."""

    def __init__(self, world: World, server: UserServer) -> None:
        self.world = world
        self.server = server
        self.port = free_port()
        self.front: Sidecar
        self.planner: Sidecar

    def settings(self, *, adapter: str = "obo-draft-02", **entry: Any) -> Settings:
        """Return the front's settings."""
        route = {
            "name": "planner",
            "match": {"prefix": "/planner"},
            "upstream": f"https://127.0.0.1:{self.port}",
            "peer": PLANNER,
            "audience": PLANNER,
            "scopes": SCOPES,
            "token": "login",
        }
        exchange = {"issuer": self.server.issuer, "adapter": adapter, "client_auth": "jwt-svid"}
        return {
            "issuers": self.issuers(),
            "outbound": {"routes": [route]},
            "exchange": exchange,
            "entry": {"may_call": ["planner"], "redirect_uris": [CALLBACK], **entry},
        }

    def issuers(self, profile: object = "obo-draft-02") -> list[Settings]:
        return [
            {
                "issuer": self.server.issuer,
                "jwks": f"{self.server.issuer}/jwks",
                "profile": profile,
                "actor_trust_domains": ["acme.example"],
                "scopes": SCOPES,
            }
        ]

    async def start(self, settings: Settings | None = None) -> None:
        front = settings or self.settings()
        inbound = {
            "agent": f"http://127.0.0.1:{self.world.agent.port}",
            "routes": [
                {
                    "name": "plan",
                    "match": {"path": "/plan", "methods": ["POST"]},
                    "scopes": ["docs.write"],
                    "peers": [FRONT],
                    "pass_token": True,
                }
            ],
        }
        planner = {"issuers": front["issuers"], "inbound": inbound}
        self.planner = await self.world.sidecar(PLANNER, planner, ports={"in": self.port, "out": 0})
        self.front = await self.world.sidecar(FRONT, front)

    async def post(self, path: str, members: object, *fields: tuple[str, str], **options: Any) -> Answer:
        """Make a request about a login, as the front app does."""
        shown = [("content-type", "application/json"), *fields]
        body = members if isinstance(members, bytes) else json.dumps(members).encode()
        return await self.world.call(self.front.outbound, None, path, headers=shown, body=body, **options)

    async def begin(self, **changes: Any) -> Settings:
        """Begin a login, and return the answer."""
        asked = {"route": "planner", "session": SESSION, **changes}
        answer = await self.post(
            "/.sidecar/logins", {name: value for name, value in asked.items() if value is not None}
        )
        assert answer.status == 201, answer
        return dict(json.loads(answer.body))

    async def go_on(self, login: str, callback: str | None = None, *, session: str = SESSION) -> Answer:
        """Continue a login: with the query of the redirect, or to ask."""
        members = {"session": session} if callback is None else {"session": session, "callback": callback}
        return await self.post(f"/.sidecar/logins/{login}", members)

    async def handle(self, session: str = SESSION, user: str = "alice", **more: Any) -> str:
        """Log a user in through a browser, and return the handle."""
        begun = await self.begin(session=session)
        answer = await self.go_on(begun["login"], await in_browser(begun["url"], user, **more), session=session)
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["handle"])

    async def ask(self, handle: str, target: str = "/planner/plan") -> Answer:
        """Make a call with a handle."""
        return await self.world.call(self.front.outbound, None, target, headers=bearer(handle))

    async def reload(self, settings: Settings) -> None:
        """Put other settings in force at the front."""
        document = yaml.safe_load(self.front.settings_path.read_text())
        kept = {name: document[name] for name in ("identity", "records", "probe", "drain_s")}
        fresh = json.loads(json.dumps(settings))
        fresh["outbound"]["listen"] = document["outbound"]["listen"]
        await self.rewrite(yaml.safe_dump({**fresh, **kept}))

    async def rewrite(self, text: str) -> None:
        """Put another text of the settings file in force at the front."""
        path = self.front.settings_path
        before = loaded_from(path)
        path.write_text(text)
        await Reload(before, {}, self.front.server, load_here).reload()


async def in_browser(url: str, user: str = "alice", *, allow: bool = True, **form: str) -> str:
    """Follow the URL as a user's browser does, answer what is asked, and return the query of the redirect back."""
    origin = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    async with aiohttp.ClientSession() as browser:
        async with browser.get(url, allow_redirects=False) as page:
            if page.status == 302:
                return urlsplit(page.headers["location"]).query
            assert page.status == 200, await page.text()
            found = re.search(r"name=request value=(\S+) ", await page.text())
            assert found is not None
        answered = {"request": found[1], "user": user, "answer": "allow" if allow else "deny", **form}
        async with browser.post(f"{origin}/consent", data=answered, allow_redirects=False) as back:
            return urlsplit(back.headers["location"]).query


def asked_in(url: str) -> dict[str, str]:
    """Return the parameters of an authorization request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@asynccontextmanager
async def open_login_world() -> AsyncIterator[LoginWorld]:
    """Open one that is not started yet."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with (
            open_world(Path(folder)) as world,
            user_server(free_port(), world.acme, {str(FRONT): [CALLBACK]}, {str(PLANNER): " ".join(SCOPES)}) as server,
        ):
            yield LoginWorld(world, server)
