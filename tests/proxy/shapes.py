"""Requests and answers of MCP and A2A in many shapes, for the search for differences between the engines.

A mutator of bytes seldom leaves a message readable. These are whole messages in which one or two facts are odd: names
of fields and members, their number and spelling, versions, sessions, tasks and contexts, paths, users.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final, TypeVar

from delegation_core.mcp_session import Holder, Session, SessionIds
from tests.core.world import INBOUND_CLAIMS, PLANNER, STS, signed
from tests.fuzz.inbound_world import token
from tests.fuzz.mutate import names_in_values
from tests.proxy.engines import HANDLE

_T = TypeVar("_T")
_NAMED: Final = 0.1  # the share of messages in which a field has the name that another's value holds

_IDS: Final = SessionIds(bytes(32))
_TASKS: Final = ("t1", "t2", "t3", "", "T1", "t" * 1025, 7, None)
_CONTEXTS: Final = ("c1", "c2", "c3", "", "C1", 7)
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_VERSIONS: Final = ("2026-07-28", "2025-06-18", "2025-11-25", "2024-11-05", "9999-01-01", "", "2026-07-28 ")
_TOOLS: Final = (
    "search",
    "named",
    "unlisted",
    "Search",
    "search ",
    "\u017fearch",
    "su\u00e9che",
    'a"b',
    "",
    "a" * 2100,
)
_OF_MCP: Final = (
    "tools/call", "tools/call", "tools/call", "tools/list", "initialize", "ping", "notifications/initialized",
    "prompts/get", "Tools/Call", "tools/call ", "subscriptions/listen", "resources/read", "nothing/known",
)  # fmt: skip
_OF_A2A: Final = (
    "SendMessage", "SendMessage", "message/send", "GetTask", "tasks/get", "CancelTask", "ListTasks", "tasks/list",
    "GetExtendedAgentCard", "SendStreamingMessage", "sendmessage", "DeleteTask", "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
)  # fmt: skip
_MCP_PATHS: Final = ("/mcp", "/mcp", "/mcp", "/cut", "/told", "/mcp/", "/MCP", "/mcp?a=b", "/mcp/a")
_A2A_PATHS: Final = (
    "/a2a", "/a2a", "/strict", "/a2a/", "/A2A", "/a2a?A2A-Version=1.0", "/a2a?a2a-version=0.3", "/strict/",
    "/a2a/.well-known/agent-card.json", "/.well-known/agent-card.json", "/a2a/lf.a2a.v1.A2AService/SendMessage",
)  # fmt: skip
_REST_PATHS: Final = (
    "/message:send", "/v1/message:send", "/tenant/message:send", "/a/b/message:send", "/message:stream",
    "/tasks/t1:cancel", "/v1/tasks/t2:cancel", "/tasks/t1:subscribe", "/tasks/t1", "/tasks", "/extendedAgentCard",
    "/tasks/t1/pushNotificationConfigs", "/Message:send", "/message:send/", "/tasks/t9:cancel",
)  # fmt: skip
_MEDIA: Final = (
    "application/json", "application/json; charset=utf-8", 'application/json;charset="UTF-8"', "APPLICATION/JSON",
    "application/a2a+json", "text/plain", "application/json; charset=utf-16", "application/json, text/plain", "",
)  # fmt: skip
_ODD_FIELDS: Final = (
    "Content-Encoding: gzip", "Content-Encoding: identity", "Content-Encoding: ", "Last-Event-ID: 1", "Last-Event-ID: ",
    "Mcp-Session-Id: s1", "Mcp-Session-Id: ", "mcp_session_id: s1", "Mcp-Session-Id: a b", "Mcp-Param-Query: dogs",
    "Mcp-Param-: x", "Mcp-Name: search", "Mcp-Name: =?base64?c2VhcmNo?=", "Mcp-Name: ", "Mcp-Method: tools/call",
    "Mcp-Method: TOOLS/CALL", "MCP-Protocol-Version: 2025-06-18", "A2A-Version: 1.0", "A2A-Version: 0.3",
    "A2A-Version: ", "A2A-Version: 1.0, 0.3", "a2a_version: 0.3", "Connection: close", "Connection: keep-alive",
    "Delegation-Reason: internal", "Delegation-Call: " + "c" * 32, "X-Forwarded-For: made.up", "If-None-Match: a",
    "Range: bytes=0-1", "Grpc-Accept-Encoding: gzip", "Content-Type: application/json", "A2A-Extensions: x",
    "Accept: text/event-stream", "X: " + "v" * 1000, "Delegation-Token: made-up", "X-HTTP-Method-Override: DELETE",
)  # fmt: skip
_STATUSES: Final = (
    "200 OK", "201 Created", "202 Accepted", "204 No Content", "304 Not Modified",
    "400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Internal Server Error", "299 Odd", "302 Found",
)  # fmt: skip
_ODD_ANSWER_FIELDS: Final = (
    "Mcp-Session-Id: s1", "Mcp-Session-Id: s2", "Mcp-Session-Id: ", "Mcp-Session-Id: a b", "mcp_session_id: s1",
    "Delegation-Reason: policy_denied", "Delegation-Reason: ", "delegation_reason: policy_denied", "Connection: close",
    "Content-Encoding: gzip", "Content-Type: text/event-stream", "Content-Type: Text/Event-Stream; charset=utf-8",
    "Last-Event-ID: 7", "Connection: keep-alive", "Transfer-Encoding: chunked", "ETag: a", "Set-Cookie: a=b",
)  # fmt: skip


@cache
def mallorys() -> bytes:
    """Return the token of another user at the same peer."""
    about = {**INBOUND_CLAIMS["sub_id"], "sub": "mallory"}
    return signed({**INBOUND_CLAIMS, "sub": "mallory", "sub_id": about, "jti": "token-m"}).raw.encode()


@cache
def _sessions() -> tuple[str, ...]:
    """Return ids of sessions as peers know them: of two users, on two routes."""
    return tuple(
        _IDS.give(route, Session(Holder("subject", PLANNER, STS, user), agents))
        for route in ("tools", "told", "cut")
        for user in ("alice", "mallory")
        for agents in ("s1", "s2")
    )


@dataclass
class Shapes:
    """Makes shapes: ``oddness`` is the share of facts that are odd. ``inbound``: they come from peers."""

    random: Random
    inbound: bool
    oddness: float = 0.04

    def request(self) -> bytes:
        """Return a request."""
        random = self.random
        kind = random.choice((self._mcp, self._mcp, self._a2a, self._a2a, self._rest, self._plain))
        path, body, fields = kind()
        if self._odd():
            body = self._spelled(body)
        fields = [field for field in fields if not self._odd()]
        for _ in range(self._usual(0, 1, 1, 2)):
            fields.insert(random.randint(0, len(fields)), random.choice(_ODD_FIELDS))
        if self._odd():
            fields.append(random.choice(fields) if fields else "X: y")
        if random.random() < _NAMED and (names := names_in_values(field.encode() for field in fields)):
            fields.insert(random.randint(0, len(fields)), f"{random.choice(names).decode()}: 1")
        method = random.choice(("GET", "DELETE", "PUT", "HEAD", "PATCH")) if self._odd() else "POST"
        if kind == self._plain and self.inbound:
            method = self._usual("GET", "PUT", "POST")
        media = random.choice(_MEDIA) if self._odd() else "application/json"
        shown = random.choice((token(), token(), token(), mallorys())).decode() if self.inbound else HANDLE
        if self.inbound:
            host, target = "writer:7443", path
        else:
            host = "crm.mesh" if kind == self._plain else "tools.mesh" if kind == self._mcp else "agent.mesh"
            target = f"http://{host}{path}"
            if random.random() < 0.2:
                host = "127.0.0.1:7080"
                target = (
                    self._usual("/below/it/agent", "/below/it", "/below", "/Below/It", "/below/it/Agent", "") + path
                )
        if self._odd():
            host = random.choice((host.upper(), f"{host}:80", "127.0.0.1:7080", "crm.mesh"))
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Content-Type: {media}", *fields]
        lines += [f"Authorization: Bearer {shown}", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body

    def answer(self) -> bytes:
        """Return an answer."""
        random = self.random
        result: Any = random.choice(({}, {"content": []}, self._task(), self._task(), {"task": self._task()}, 7, None))
        if isinstance(result, dict) and random.random() < 0.2:
            result |= random.choice(({"contextId": "c2"}, {"kind": "task"}, {"statusUpdate": {"taskId": "t2"}}))
        rpc: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "result": result}
        if self._odd():
            rpc = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m"}}
        body = json.dumps(result if self._odd() else rpc).encode()
        if self._odd():
            body = self._spelled(body)
        fields = [f"Content-Type: {random.choice(_MEDIA) if self._odd() else 'application/json'}"]
        fields += random.sample(_ODD_ANSWER_FIELDS, random.choice((0, 0, 0, 1, 1, 2)))
        if random.random() < _NAMED and (names := names_in_values(field.encode() for field in fields)):
            fields.append(f"{random.choice(names).decode()}: 1")
        status = self._usual(*_STATUSES)
        if status.startswith("401") and not self.inbound:
            status = "403 Forbidden"  # a 401 drops the token, and nobody issues another here
        if self._odd():
            events = b"data: " + body + random.choice((b"\n\n", b"\r\n\r\n", b"\n"))
            if random.random() < 0.5:
                chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)
                fields = ["Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
                return f"HTTP/1.1 {status}\r\n".encode() + "\r\n".join(fields).encode() + b"\r\n\r\n" + chunked
            fields, body = ["Content-Type: text/event-stream", *fields[1:]], events
        early = random.choice((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"))
        length = [] if random.random() < 0.05 else [f"Content-Length: {len(body)}"]
        head = "\r\n".join([f"HTTP/1.1 {status}", *fields, *length]).encode() + b"\r\n\r\n"
        return (early if random.random() < 0.05 else b"") + head + (b"" if status[:3] in {"204", "304"} else body)

    def _odd(self) -> bool:
        return self.random.random() < self.oddness

    def _usual(self, usual: _T, *others: _T) -> _T:
        return self.random.choice((usual, *others)) if self.random.random() < 0.3 else usual

    def _task(self) -> dict[str, Any]:
        task: dict[str, Any] = {"id": self.random.choice(_TASKS), "contextId": self.random.choice(_CONTEXTS)}
        return {name: value for name, value in task.items() if self.random.random() < 0.8}

    def _mcp(self) -> tuple[str, bytes, list[str]]:
        random = self.random
        version = random.choice(_VERSIONS) if self._odd() else random.choice(_VERSIONS[:2])
        method, name = self._usual(*_OF_MCP), self._usual(*_TOOLS)
        params: dict[str, Any] = {
            "arguments": {"query": self._usual("dogs", "d\u00f6gs", 1e400, 10**30, [[[]]], 2**63)}
        }
        if method.lower().startswith("tools/call") or self._odd():
            params["name"] = name
        if version == "2026-07-28":
            params["_meta"] = {_VERSION: version}
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        message["id"] = self._usual(1, "a", None, 1.5, 10**20, 0)
        if method.startswith("notifications/") or self._odd():
            del message["id"]
        message["params"] = params
        fields = [f"MCP-Protocol-Version: {version}"]
        if version == "2026-07-28":
            fields += [f"Mcp-Method: {method}", f"Mcp-Name: {name if name.isascii() else 'x'}"]
        elif random.random() < 0.6:
            fields.append(f"Mcp-Session-Id: {self._usual(*_sessions())}")
        return self._usual(*_MCP_PATHS) if self.inbound else "/mcp", json.dumps(message).encode(), fields

    def _message(self) -> dict[str, Any]:
        random = self.random
        message: dict[str, Any] = {"messageId": "m", "role": "ROLE_USER", "parts": []}
        for chance, names, values in (
            (0.1, ("taskId", "taskId", "task_id", "taskID", "id"), _TASKS),
            (0.2, ("contextId", "contextId", "context_id", "ContextId"), _CONTEXTS),
            (0.05, ("referenceTaskIds", "reference_task_ids"), (["t1"], ["t1", "t9"], "t1", [])),
        ):
            for _ in range(2):
                if random.random() < chance / 1.5:
                    message[random.choice(names)] = random.choice(values)
        return message

    def _a2a(self) -> tuple[str, bytes, list[str]]:
        random = self.random
        method = self._usual(*_OF_A2A)
        params: dict[str, Any] = {"message": self._message()}
        if method not in {"SendMessage", "message/send", "SendStreamingMessage"}:
            params = {random.choice(("id", "id", "taskId", "name")): random.choice(_TASKS)}
        if self._odd():
            params |= random.choice(
                (
                    {"contextId": "c1"},
                    {"configuration": {"pushNotificationConfig": {"url": "https://a.b/c"}}},
                    {"id": 1},
                )
            )
        message = {"jsonrpc": "2.0", "id": self._usual(1, "a", None, 2**63), "method": method, "params": params}
        version = "0.3" if "/" in method else "1.0"
        path = (
            self._usual(*_A2A_PATHS) if self.inbound else random.choice(("/rpc", "/", "/a/b", "/rpc?a2a-version=1.0"))
        )
        return path, json.dumps(message).encode(), [f"A2A-Version: {version}"]

    def _rest(self) -> tuple[str, bytes, list[str]]:
        random = self.random
        path = self._usual(*_REST_PATHS)
        start = random.choice(("/a2a", "/a2a", "/strict")) if self.inbound else random.choice(("", "/v1", "/x/y"))
        body = b"" if path.endswith(":cancel") else json.dumps({"message": self._message()}).encode()
        query = random.choice(("", "", "", "?contextId=c1", "?A2A-Version=1.0", "?"))
        return start + path + query, body, ["A2A-Version: 1.0"]

    def _plain(self) -> tuple[str, bytes, list[str]]:
        """Return a request without a protocol, on a path that shares its beginning with others."""
        below = [self._usual("a", "A", "b", "docs", "search", ".well-known", "x~y", "") for _ in range(5)]
        depth = self.random.randint(0, 4)
        start = self._usual("/docs", "/Docs", "/docs/", "/search", "/docsx", "") if self.inbound else "/tool"
        path = "/".join((start, *below[:depth])) + self._usual("", "/", "?", "?a=b", "/a2a")
        return path or "/", b"" if self.random.random() < 0.5 else b"body", []

    def _spelled(self, body: bytes) -> bytes:
        """Spell a document in another way, or break it."""
        random = self.random
        ways: Sequence[Callable[[bytes], bytes]] = (
            lambda text: b"\xef\xbb\xbf" + text,
            lambda text: b" \r\n\t" + text + b"\n",
            lambda text: text + random.choice((b"{}", b"\0", b"x", b",", b"\n\n" + text)),
            lambda text: b"[" + text + b"]",
            lambda text: text.replace(b'"method": "', b'"method": "ping", "method": "'),
            lambda text: text.replace(b'"name": "', b'"name": "x", "name": "'),
            lambda text: text.replace(b'"name"', b'"n\\u0061me"'),
            lambda text: text.replace(b'"name"', b'"Name"'),
            lambda text: text.replace(b'"method"', random.choice((b'"Method"', b'"metho\\u0064"', b'"method\\u0000"'))),
            lambda text: text.replace(b"tools/call", b"tools\\/c\\u0061ll"),
            lambda text: text.replace(b'"params"', b'"params": {}, "params"'),
            lambda text: text.replace(
                b'"id": 1', random.choice((b'"id": 1e0', b'"id": 01', b'"id": -0', b'"id": NaN'))
            ),
            lambda text: text.replace(b'"t1"', random.choice((b'"\\u00741"', b'"t1\\ud800"', b'"t\xff1"'))),
            lambda text: text.replace(b'"c1"', random.choice((b'"\\u00631"', b'"c1\\u0000"', b'"c\xc3\xa91"'))),
            lambda text: text.replace(b": ", b":").replace(b", ", b","),
            lambda text: text.decode("utf-8", "replace").encode("utf-16"),
            lambda text: text[: random.randint(0, len(text))],
            lambda text: text.replace(b"{}", b"[" * 200 + b"]" * 200),
        )
        return random.choice(ways)(body)
