"""``sidecar sts doctor`` before servers that we did not write: every cell that a probe can see is the known one."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.bearer import parse_bearer
from tests.fakes.conversations import listening
from tests.fakes.tokens import SvidMint
from tests.integration.world import ok
from tests.interop.sts_servers import launch_spring, launch_zitadel
from tests.interop.sts_servers.launch_keycloak import KeycloakServer
from tests.interop.sts_servers.launchers import LAUNCHERS, Foreign, reason_to_skip
from tests.interop.sts_servers.server import CRM, MAY_ACT, PLANNER, WRITER, Client, Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]  # the first run builds servers

YES, NO, REFUSED, NARROWED = "yes", "no", "refused", "narrowed"
CANNOT_SEE, NOT_TESTED = "cannot see", "not tested"

# Each cell's value, and a part of its detail.
IDPYOIDC: Final = {
    "accepts-actor": (REFUSED, "400 invalid_request"),
    "garbage-actor": (REFUSED, "400 invalid_request"),
    "forged-actor": (REFUSED, "400 invalid_request"),
    "ignores-actor": (NO, "it refuses them"),
    "half-pairs": (YES, "400 invalid_request"),
    "emits-act": (NO, "never"),
    "binds-actor": (NOT_TESTED, "refused or ignored"),
    "nests-act": (NO, "there is no act"),
    "chain-without-actor": (NOT_TESTED, "there is no act"),
    "delegated-actor": (NOT_TESTED, "refused or ignored"),
    "keeps-sub": (YES, ""),
    "scope-absent": (YES, "the subject's scopes"),
    "widens-scope": (NARROWED, "cut without an error"),
    "audience": (NO, "checked, but the token has no aud"),
    "unknown-audience": (REFUSED, "400 invalid_target"),
    "resource": (YES, "400 invalid_target"),
    "requester-in-audience": (NO, ""),
    "caps-life": (NO, ""),
    "verifies-subject": (REFUSED, "500"),
    "refuses-duplicates": (YES, "500: an exception"),
    "sender-bound": (NOT_TESTED, "no token bound"),
    "wrong-secret": (REFUSED, "401 invalid_client"),
    "ends-with-subject": (NOT_TESTED, ""),
}
ZITADEL_EXAMPLE: Final = {
    "accepts-actor": (YES, "as access_token"),
    "garbage-actor": (REFUSED, "400 invalid_request"),
    "forged-actor": (REFUSED, "400 invalid_request"),
    "ignores-actor": (YES, "after verifying it"),
    "emits-act": (NO, "never"),
    "nests-act": (NO, "there is no act"),
    "chain-without-actor": (NOT_TESTED, "there is no act"),
    "keeps-sub": (YES, ""),
    "scope-absent": (CANNOT_SEE, ""),
    "widens-scope": (YES, "even an invented scope"),
    "audience": (YES, "of an ID token"),
    "unknown-audience": (YES, "copied, unchecked"),
    "resource": (NO, "ignored"),
    "requester-in-audience": (NO, ""),
    "caps-life": (NO, ""),
    "refuses-duplicates": (NO, "200"),
    "refuses-repeated-scope": (NO, "200"),
    "wrong-secret": (REFUSED, "401 invalid_client"),
}
ZITADEL_LOOSE: Final = {
    "accepts-actor": (YES, "as access_token"),
    "garbage-actor": (REFUSED, "400 invalid_request"),
    "forged-actor": (REFUSED, "400 invalid_request"),
    "ignores-actor": (NO, ""),
    "emits-act": (YES, "{sub}"),
    "binds-actor": (NO, "act names client 2"),
    "nests-act": (YES, ""),
    "inherited-act": (YES, ""),
    "third-hop": (YES, ""),
    "chain-without-actor": (REFUSED, "400 invalid_request"),
    "delegated-actor": (YES, "wrong act"),
    "keeps-sub": (YES, ""),
    "scope-absent": (NARROWED, "(none)"),
    "narrows-scope": (YES, "to crm.read"),
    "widens-scope": (YES, "to crm.write"),
    "audience": (YES, ""),
    "unknown-audience": (YES, "copied, unchecked"),
    "resource": (NO, "ignored"),
    "requester-in-audience": (NO, ""),
    "caps-life": (NO, ""),
    "refuses-duplicates": (NO, "200"),
    "wrong-secret": (REFUSED, "401 invalid_client"),
}
# Our main on zitadel's library, where it is strict: what the library leaves open stays open.
ZITADEL_OWN: Final = {
    **ZITADEL_LOOSE,
    "binds-actor": (YES, "400 invalid_request"),
    "delegated-actor": (REFUSED, "400 invalid_request"),
    "scope-absent": (YES, "the subject's scopes"),
    "widens-scope": (REFUSED, "400 invalid_scope"),
    "caps-life": (YES, "by the claims"),
}
SPRING: Final = {
    "accepts-actor": (YES, "as access_token"),
    "garbage-actor": (REFUSED, "400 invalid_grant"),
    "forged-actor": (REFUSED, "400 invalid_grant"),
    "ignores-actor": (NO, ""),
    "half-pairs": (YES, "400 invalid_request"),
    "emits-act": (YES, "{iss, sub}"),
    "binds-actor": (NO, "act names client 2"),
    "user-as-actor": (YES, ""),
    "nests-act": (YES, ""),
    "inherited-act": (YES, ""),
    "third-hop": (YES, ""),
    "chain-without-actor": (NO, "the chain is dropped"),
    "delegated-actor": (YES, "wrong act"),
    "keeps-sub": (YES, ""),
    "scope-absent": (YES, "the subject's scopes"),
    "widens-scope": (YES, "to crm.write"),
    "audience": (NO, "ignored"),
    "unknown-audience": (YES, "ignored"),
    "two-audiences": (NO, "ignored"),
    "resource": (NO, "ignored; only its syntax is checked"),
    "requester-in-audience": (NO, ""),
    "caps-life": (NO, ""),
    "verifies-subject": (REFUSED, "400 invalid_grant"),
    "refuses-duplicates": (YES, "400 invalid_request"),
    "sender-bound": (NO, "into an unbound token"),
    "wrong-secret": (REFUSED, "401 invalid_client"),
    "ends-with-subject": (NO, "only new exchanges are refused"),
}
SPRING_CUSTOMIZED: Final = {
    **SPRING,
    "audience": (YES, ""),
    "unknown-audience": (YES, "copied, unchecked"),
    "two-audiences": (YES, ""),
    "caps-life": (YES, "by the claims"),
}
KEYCLOAK: Final = {
    "accepts-actor": (NO, "as if absent"),
    "garbage-actor": (YES, "2 of 2, as if absent"),
    "forged-actor": (YES, "4 of 4, as if absent"),
    "ignores-actor": (YES, "never looked at"),
    "half-pairs": (NO, ""),
    "emits-act": (NO, "never"),
    "binds-actor": (NOT_TESTED, "refused or ignored"),
    "nests-act": (NO, "there is no act"),
    "chain-without-actor": (NOT_TESTED, "there is no act"),
    "delegated-actor": (NOT_TESTED, "refused or ignored"),
    "keeps-sub": (YES, ""),
    "scope-absent": (NARROWED, ""),  # to the client's default scopes
    "narrows-scope": (YES, "to crm.read"),
    "widens-scope": (YES, "to crm.write"),
    "audience": (YES, ""),
    "unknown-audience": (REFUSED, "400 invalid_client"),
    "resource": (NO, "ignored"),
    "requester-in-audience": (YES, "403 access_denied"),
    "caps-life": (NO, ""),
    "verifies-subject": (REFUSED, "400 invalid_request"),
    "refuses-duplicates": (YES, "400 invalid_request"),
    "sender-bound": (YES, "400 invalid_request"),
    "wrong-secret": (REFUSED, "401 unauthorized_client"),
}
CELLS: Final[dict[str, Mapping[str, tuple[str, str]]]] = {
    "idpyoidc": IDPYOIDC,
    "zitadel-example": ZITADEL_EXAMPLE,
    "zitadel-own": ZITADEL_OWN,
    "zitadel-own-loose": ZITADEL_LOOSE,
    "spring": SPRING,
    "spring-customized": SPRING_CUSTOMIZED,
    "keycloak": KEYCLOAK,
}
FACTS: Final[dict[str, Mapping[str, str]]] = {
    "idpyoidc": {
        "header typ": "none", "scope claim": "scope, string", "client in the token": "client_id",
        "shape of aud": "absent", "refusals": "400 invalid_request",
    },
    "zitadel-example": {
        "header typ": "JWT", "access token": "JWE", "scope claim": "none", "client in the token": "client_id, azp",
        "shape of aud": "list", "refusals": "500 server_error",
        "client authentication proven": "client_secret_basic, none (public client)",
    },
    "zitadel-own": {"header typ": "JWT", "client in the token": "client_id", "shape of aud": "list of 1"},
    "zitadel-own-loose": {"header typ": "JWT", "client in the token": "client_id", "shape of aud": "list of 1"},
    "spring": {
        "header typ": "none", "scope claim": "scope, array", "client in the token": "none", "shape of aud": "string",
        "members of act": "iss, sub", "refusals": "400 invalid_grant",
    },
    "spring-customized": {"header typ": "none", "scope claim": "scope, array", "shape of aud": "string"},
    "keycloak": {
        "header typ": "JWT", "payload typ": "Bearer; DPoP if sender-bound", "scope claim": "scope, string",
        "client in the token": "azp", "shape of aud": "string", "refusals": "400 invalid_request",
    },
}  # fmt: skip
FITS: Final = frozenset({"zitadel-own"})


@dataclass(frozen=True)
class Diagnosis:
    """The document of one run, and its exit code."""

    code: int
    cells: dict[str, dict[str, Any]]
    document: dict[str, Any]

    def seen(self, cell: str) -> str:
        found = self.cells[cell]
        return f"{found['value']}: {found['detail']}"


async def diagnose(
    server: Server, folder: Path, *more: str, user: str = "alice", scopes: tuple[str, ...] = ("crm.read",)
) -> Diagnosis:
    """Run the command on a server with a token of this user."""
    words = [sys.executable, "-m", "sidecar", "sts", "doctor", server.issuer, "--yes", "--json"]

    def file(name: str, content: str) -> str:
        path = folder / name
        path.write_text(content)
        return str(path)

    def client(one: Client, name: str) -> list[str]:
        return ["--client", one.client_id, one.auth.value, file(name, one.secret)]

    scopes = tuple(scope for scope in scopes if scope in server.scopes) or server.scopes[:1]
    words += [*client(server.planner, "planner"), *client(server.writer, "writer")]
    words += ["--subject", file("subject", await server.subject_token(user, scopes))]
    words += ["--subject-type", server.subject_token_type.rpartition(":")[2], "--scope", scopes[0]]
    for audience in reversed(server.audiences):
        words += ["--audience", audience]
    if server.name == "zitadel-example":  # its clients have no tokens of their own, and one is public
        assert server.actor_token is not None
        words += ["--actor", file("actor", await server.actor_token(server.planner)), "--client", "native", "none"]
    process = await asyncio.create_subprocess_exec(
        *words, "--wider-scope", "crm.write", *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode in (0, 1), err.decode()
    document = json.loads(out)
    return Diagnosis(process.returncode, {cell["id"]: cell for cell in document["cells"]}, document)


@pytest.mark.parametrize("name", CELLS)
async def test_the_doctor_sees_what_the_server_does(foreign: Foreign, name: str, tmp_path: Path) -> None:
    found = await diagnose(await foreign(name), tmp_path)
    expected = CELLS[name]
    wrong = {
        cell: (value, detail, found.seen(cell), found.cells[cell]["evidence"])
        for cell, (value, detail) in expected.items()
        if found.cells[cell]["value"] != value or detail not in found.cells[cell]["detail"]
    }
    assert wrong == {}
    facts = found.document["facts"]
    assert {fact: facts[fact] for fact, text in FACTS[name].items() if text not in facts[fact]} == {}
    assert facts["signature"].endswith(", verified")
    assert (found.code, found.document["fits"]) == ((0, True) if name in FITS else (1, False))
    assert bool(found.document["against"]) is (name not in FITS)


@pytest.mark.parametrize("name", ["idpyoidc", "spring", "zitadel-own", "keycloak"])
async def test_a_subject_with_two_scopes_shows_that_scope_narrows(foreign: Foreign, name: str, tmp_path: Path) -> None:
    found = await diagnose(await foreign(name), tmp_path, scopes=("crm.read", "crm.write"))
    assert found.seen("narrows-scope").startswith("yes: to crm.read")


async def test_zitadels_impersonation_is_seen_by_its_scope(foreign: Foreign, tmp_path: Path) -> None:
    server = await foreign("zitadel-example")
    found = await diagnose(server, tmp_path, "--wider-scope", "custom_scope:impersonate:alice", user="bob")
    assert found.seen("emits-act").startswith("no: only by: a wider scope")
    assert found.seen("keeps-sub").startswith("no: another sub by: a wider scope")


async def test_an_act_that_keycloaks_administrator_writes_is_no_delegation(foreign: Foreign, tmp_path: Path) -> None:
    server = await foreign("keycloak")
    assert isinstance(server, KeycloakServer)
    async with (
        server.forging_act(server.planner, {"sub": PLANNER}),
        server.forging_act(server.writer, {"sub": WRITER}),
    ):
        found = await diagnose(server, tmp_path)
    assert found.seen("emits-act").startswith("no: act is constant")
    assert found.cells["nests-act"]["value"] == NO
    assert found.document["fits"] is False


async def with_may_act(server: Server, folder: Path, *scopes: str) -> Diagnosis:
    """Run the command with a second token of alice's, by a login with these scopes besides; it names the planner."""
    token = await server.subject_token("alice", ("crm.read", *scopes))
    may_act = parse_bearer(token).claims["may_act"]
    assert isinstance(may_act, dict)
    assert may_act["sub"] == PLANNER
    path = folder / "may-act"
    path.write_text(token)
    return await diagnose(server, folder, "--may-act-subject", str(path))


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        pytest.param("zitadel-own", "yes: 400 invalid_request", id="our main on zitadel's op, strict"),
        pytest.param("zitadel-own-loose", "no: accepted: subject with may_act, another actor", id="zitadel's op alone"),
        pytest.param("idpyoidc", "no: accepted: subject with may_act, no actor", id="idpyoidc"),
    ],
)
async def test_may_act_is_seen_to_be_enforced_or_not(foreign: Foreign, name: str, seen: str, tmp_path: Path) -> None:
    found = await with_may_act(await foreign(name), tmp_path, f"{MAY_ACT}{PLANNER}")
    assert found.seen("checks-may-act") == seen
    assert found.document["fits"] is (name in FITS)
    assert ("it does not enforce may_act: do not rely on it" in found.document["cautions"]) is (name not in FITS)


async def test_spring_enforces_a_may_act_whose_issuer_is_its_own_object_and_refuses_everybody_by_a_text(
    tmp_path: Path,
) -> None:
    if reason := reason_to_skip(LAUNCHERS["spring"]):
        pytest.skip(reason)
    async with launch_spring.start(tmp_path, customized=False, may_act=True) as server:
        found = await with_may_act(server, tmp_path, launch_spring.MAY_ACT_OBJECT)
        assert found.seen("checks-may-act") == "yes: 400 invalid_grant"
        found = await with_may_act(server, tmp_path, launch_spring.MAY_ACT_TEXT)
        assert found.seen("checks-may-act") == "refused: the named actor too"
        assert any("refuses even the actor" in one for one in found.document["cautions"])


async def test_a_may_act_that_keycloaks_administrator_writes_binds_nobody(foreign: Foreign, tmp_path: Path) -> None:
    server = await foreign("keycloak")
    assert isinstance(server, KeycloakServer)
    async with server.forging(server.front, "may_act", {"sub": PLANNER}):
        found = await with_may_act(server, tmp_path)
    assert found.seen("checks-may-act") == "no: accepted: subject with may_act, another actor"


async def test_a_jwt_svid_is_seen_to_serve_as_actor(tmp_path: Path) -> None:
    if reason := reason_to_skip(LAUNCHERS["zitadel-own"]):
        pytest.skip(reason)
    mint = SvidMint()

    async def bundle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(mint.jwks, b"content-type: application/json", b"connection: close"))
        await writer.drain()
        writer.close()

    async with listening(bundle) as port, launch_zitadel.own(tmp_path, bundle=f"http://127.0.0.1:{port}/") as server:
        now = int(time.time())

        def svid(spiffe_id: str) -> str:
            path = tmp_path / f"{spiffe_id.rpartition('/')[2]}.svid"
            claims = mint.claims(sub=spiffe_id, aud=[server.issuer], iat=now, exp=now + 300)
            path.write_text(mint.mint(claims))
            return str(path)

        planners, writers = svid(PLANNER), svid(WRITER)
        beside = await diagnose(server, tmp_path, "--foreign-actor", planners)
        assert beside.seen("foreign-actor").startswith("yes")
        found = await diagnose(server, tmp_path, "--actor", planners, "--other-actor", writers)
    assert found.seen("accepts-actor") == "yes: client 1's token, as jwt"
    assert found.seen("binds-actor").startswith("yes")
    assert (found.cells["nests-act"]["value"], found.document["fits"]) == (YES, True)
    assert "options" not in found.document["settings"]["exchange"]  # a sidecar sends its JWT-SVID by default


async def test_neither_secret_nor_token_is_printed(foreign: Foreign, tmp_path: Path) -> None:
    server = await foreign("idpyoidc")
    found = await diagnose(server, tmp_path)
    text = json.dumps(found.document)
    assert server.planner.secret not in text
    assert (tmp_path / "subject").read_text() not in text
    assert CRM in text
