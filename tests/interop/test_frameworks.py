"""Real servers at their defaults behind a real sidecar: no header makes one serve a call other than the judged one.

Each attack stands beside its lawful twin, the same call without the header: the server must report the same for both.
Attacks that work on a server without a sidecar are also sent to it directly, to prove that they are attacks.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import PLANNER, WRITER, Answer, World, bearer, calling, mint, parse
from tests.interop.frameworks import FRAMEWORKS, Framework, java_caller, reason_to_skip, serving, view_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PATH: Final = "/public/admin/secret"
TOLD: Final = "/told/admin/secret"  # of the route that says `forwarded`
OURS: Final = ("authorization", "delegation-handle", "delegation-request-id", "traceparent")  # new in each request

Fields = list[tuple[str, str]]
ATTACKS: Final[dict[str, Fields]] = {
    # path
    "SCRIPT_NAME": [("SCRIPT_NAME", "/public")],
    "PATH_INFO": [("PATH_INFO", "/admin/secret")],
    **{
        name: [(name, "/admin/secret")]
        for name in (
            *("Script-Name", "Path-Info", "X-Script-Name", "X-Path-Info", "X-Original-URL", "X-Original-URI"),
            *("X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Envoy-Original-Path"),
            *("X_Original_URL", "X.Original.URL", "X-Matched-Path", "X-Invoke-Path", "Base-Url"),
        )
    },
    # method
    **{
        name: [(name, "DELETE")]
        for name in (
            *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_METHOD_OVERRIDE"),
            *("X-Forwarded-Method", "X.HTTP.Method.Override"),
        )
    },
    # client
    **{
        name: [(name, "203.0.113.9")]
        for name in (
            *("X-Forwarded-For", "X-Real-IP", "Client-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"),
            *("X-Cluster-Client-IP", "Remote-Addr", "REMOTE_ADDR", "X_FORWARDED_FOR", "X.Forwarded.For"),
        )
    },
    "Forwarded": [("Forwarded", "for=203.0.113.9;proto=https;host=evil.example")],
    # scheme and host
    "X-Forwarded-Proto": [("X-Forwarded-Proto", "https")],
    "X-Forwarded-Ssl": [("X-Forwarded-Ssl", "on")],
    "X-Forwarded-Protocol": [("X-Forwarded-Protocol", "ssl")],
    **{
        name: [(name, "https")]
        for name in ("X-Forwarded-Scheme", "X-Url-Scheme", "X-Scheme", "Front-End-Https", "HTTPS", "X_FORWARDED_PROTO")
    },
    "X-Forwarded-Host": [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Port", "1")],
    "X-Host": [("X-Host", "evil.example"), ("X-HTTP-Host-Override", "evil.example")],
    "HTTP_HOST": [("HTTP_HOST", "evil.example"), ("SERVER_NAME", "evil.example")],
    # user
    **{
        name: [(name, "mallory")]
        for name in (
            *("Remote-User", "REMOTE_USER", "X-Remote-User", "X-Forwarded-User", "X-Auth-Request-User", "AUTH_USER"),
            *("X-Authenticated-User", "X-WebAuth-User", "X-Jwt-Payload", "X-Ms-Client-Principal", "L5d-Client-Id"),
            *("X-Amzn-Oidc-Identity", "X-Goog-Authenticated-User-Email", "X-Forwarded-Client-Cert", "$WSRU"),
            *("Delegation-Subject", "Delegation_Subject", "Delegation.Subject", "DELEGATION-ACTOR", "Delegation_Scope"),
        )
    },
    # internal headers of servers and frameworks, and the rest
    "X-Middleware-Subrequest": [("X-Middleware-Subrequest", "middleware:middleware:middleware")],
    "Rack::Sendfile": [("X-Sendfile-Type", "X-Accel-Redirect"), ("X-Accel-Mapping", "/=/etc/")],
    "Spring Cloud Function": [("spring.cloud.function.definition", "mallory")],
    "httpoxy": [("Proxy", "http://203.0.113.9/")],
    "framing in underscores": [("Content_Length", "3"), ("Transfer_Encoding", "chunked"), ("Content_Type", "x/y")],
}
BODY: Final = b'{"a": "b"}'
LAWFUL: Final[Fields] = [("Content-Type", "application/json"), ("X-Api-Key", "k"), ("Cookie", "a=b")]
TRAILERS: Final = b"SCRIPT_NAME: /public\r\nX-Forwarded-For: 203.0.113.9\r\nRemote-User: mallory\r\n"


def settings_of(world: World, port: int) -> dict[str, Any]:
    settings = world.settings()
    settings["inbound"]["agent"] = f"http://127.0.0.1:{port}"
    rule = {"scopes": ["docs.write"], "peers": [str(PLANNER)]}
    settings["inbound"]["routes"] = [
        {"name": "public", "match": {"path_prefix": "/public", "methods": ["POST"]}, **rule},
        {"name": "told", "match": {"path_prefix": "/told", "methods": ["POST"]}, "forwarded": True, **rule},
    ]
    return settings


def seen(answer: Answer) -> dict[str, Any]:
    """Return the server's view, without the parts that are new in each request."""
    assert answer.status == 200, answer
    if answer.headers.get("transfer-encoding") == "chunked":
        size, _, rest = answer.body.partition(b"\r\n")
        answer.body = rest[: int(size, 16)]
    view = view_of(answer.body)
    for name in OURS:
        view["fields"].pop(name, None)
    return view


def without_length(view: dict[str, Any]) -> dict[str, Any]:
    """Return the same, without the form of the body's length."""
    lengths = {"content-length", "transfer-encoding"}
    return {**view, "fields": {name: value for name, value in view["fields"].items() if name not in lengths}}


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.name)
async def test_no_header_changes_what_a_server_says_of_a_call(world: World, framework: Framework) -> None:
    if reason := framework.reason_to_skip():
        pytest.skip(reason)
    await asyncio.to_thread(framework.prepare)
    async with serving(framework, world.folder / "server.log") as port:
        await _judge(world, framework, port)


async def _judge(world: World, framework: Framework, port: int) -> None:
    sidecar = await world.sidecar(WRITER, settings_of(world, port))
    planner = calling(await world.source(PLANNER), WRITER)
    shown = bearer(mint())

    async def ask(fields: Fields = LAWFUL, path: str = PATH, host: str | None = None) -> dict[str, Any]:
        return seen(await world.call(sidecar.inbound, planner, path, headers=[*shown, *fields], body=BODY, host=host))

    async def directly(fields: Fields) -> dict[str, Any]:
        return seen(await world.call(port, None, PATH, headers=[*LAWFUL, *fields], body=BODY))

    lawful = await ask()
    assert (lawful["path"].replace("|", ""), lawful["method"]) == (PATH, "POST")
    assert (lawful["scheme"], lawful["host"], lawful["client"]) == ("http", f"127.0.0.1:{port}", "127.0.0.1")
    assert (lawful["user"], lawful["fields"]["delegation-subject"]) == ("", "alice")
    assert (lawful["fields"]["x-api-key"], lawful["fields"]["cookie"]) == ("k", "a=b")

    wrong = {name: differing(lawful, await ask([*LAWFUL, *fields])) for name, fields in ATTACKS.items()}
    wrong["a foreign Host"] = differing(lawful, await ask(host="evil.example"))
    wrong["all at once"] = differing(lawful, await ask([*LAWFUL, *ATTACKS["SCRIPT_NAME"], *ATTACKS["X-Real-IP"]]))
    trailing = await _with_trailers(world, sidecar.inbound, planner, shown)
    wrong["trailers"] = differing(without_length(lawful), without_length(trailing))
    assert {name: found for name, found in wrong.items() if found} == {}

    told = await ask(path=TOLD)
    wrong = {name: differing(told, await ask([*LAWFUL, *fields], TOLD)) for name, fields in ATTACKS.items()}
    assert {name: found for name, found in wrong.items() if found} == {}
    forwarded = {name: value for name, value in told["fields"].items() if name.startswith("x-forwarded-")}
    _check_told(framework, told, forwarded, sidecar.inbound)

    unguarded = await directly([])
    bitten = {name for name in framework.bites if await _bites(directly(ATTACKS[name]), unguarded)}
    assert bitten == framework.bites, "without a sidecar these attacks no longer work: they prove nothing"


def _check_told(framework: Framework, told: dict[str, Any], forwarded: dict[str, str], port: int) -> None:
    if framework.name == "waitress":  # it removes headers that it is not configured to trust
        assert forwarded == {}
    else:
        expected = {"proto": "https", "host": f"127.0.0.1:{port}", "for": "127.0.0.1"}
        assert forwarded == {f"x-forwarded-{name}": value for name, value in expected.items()}
    if framework.name in {"gunicorn", "uvicorn", "rack"}:
        assert told["scheme"] == "https"


async def _bites(asked: Any, unguarded: dict[str, Any]) -> bool:
    """Tell if an attack changed more than the fields that the server lists."""
    return bool(differing(unguarded, await asked).keys() - {"fields"})


async def _with_trailers(world: World, port: int, planner: Any, shown: Fields) -> dict[str, Any]:
    """Return the same call, its body in one chunk, with a trailer."""
    lines = [f"POST {PATH} HTTP/1.1", f"host: 127.0.0.1:{port}", "transfer-encoding: chunked", "connection: close"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in [*shown, *LAWFUL]), "", ""]).encode()
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    return seen(parse(await world.exchange(port, planner, head + chunk + TRAILERS + b"\r\n")))


async def test_javas_client_at_its_defaults_calls_out_through_a_sidecar(hops: Hops) -> None:
    if reason := reason_to_skip("java", ("java", "javac")):
        pytest.skip(reason)
    command = await asyncio.to_thread(java_caller)
    await hops.start()

    async def call(handle: str) -> str:
        url = f"http://127.0.0.1:{hops.writer.outbound}/crm/customers"
        process = await asyncio.create_subprocess_exec(*command, url, handle, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return said.decode().strip()

    assert (await call("x" * 43)).startswith("403 ")
    async with hops.serving() as held:
        assert await call(held.handle) == "200 done"
    assert b"upgrade" not in hops.crm.requests[0][0].lower()
