"""Lines of every format as its product writes them by default, written by hand. ``{user}`` and others vary."""

from __future__ import annotations

import json
from typing import Any, Final

WRITER: Final = "spiffe://example.org/agent/writer"
PLANNER: Final = "spiffe://example.org/agent/planner"
GATEWAY: Final = "spiffe://example.org/gateway"
ROLE: Final = "arn:aws:iam::111122223333:role/writer"

AGENTS: Final = f"""
writer = {WRITER}, writer-client, system:serviceaccount:shop:writer, {ROLE}, 10.0.3.0/24, user-agent:writer/*
planner = {PLANNER}, planner-client, system:serviceaccount:shop:planner
"""

COMMON: Final = '{ip} - {user} [28/Nov/2026:10:00:00 +0000] "GET /orders HTTP/1.1" 200 12'
COMBINED: Final = COMMON + ' "-" "{agent}"'
ENVOY: Final = (
    '[2026-11-28T10:00:00.123Z] "GET /orders?k=secret HTTP/1.1" 200 - 0 12 3 2 "{ip}" "{agent}"'
    ' "5c9d0a53-1ac9-4e8e-a7a5-0c5b6c2a9b11" "crm.example.org" "10.1.1.1:8080"'
)
ISTIO: Final = (
    '[2026-11-28T10:00:00.123Z] "GET /orders HTTP/1.1" 200 - via_upstream - "-" 0 12 3 2 "-" "{agent}"'
    ' "5c9d0a53-1ac9-4e8e-a7a5-0c5b6c2a9b11" "crm.shop:8080" "10.1.1.1:8080" inbound|8080|| 127.0.0.6:44591'
    " 10.1.1.1:8080 {ip}:53112 outbound_.8080_._.crm.shop.svc.cluster.local default"
)
HAPROXY: Final = (
    "Nov 28 10:00:00 lb1 haproxy[14389]: {ip}:33317 [28/Nov/2026:10:00:00.655] http-in~ static/srv1"
    ' 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {{crm.example.org}} {{}} "GET /orders HTTP/1.1"'
)
AGENTGATEWAY: Final = (
    "2026-11-28T10:00:00.547567Z\tinfo\trequest gateway=bind/3000 listener=listener0 route=route0"
    " endpoint=localhost:9999 src.addr={ip}:59257 http.method=POST http.host=localhost http.path=/mcp"
    " http.version=HTTP/1.1 http.status=200 jwt.sub={user} protocol=mcp mcp.method.name=tools/call"
    " gen_ai.tool.name={tool} duration=3ms"
)
KEYCLOAK_LOG: Final = (
    '2026-11-28 10:00:00,000 DEBUG [org.keycloak.events] (executor-thread-1) type="TOKEN_EXCHANGE", realmId="r1",'
    ' realmName="shop", clientId="{client}", userId="u1", ipAddress="10.9.9.9", audience="crm", username="{user}"'
)
AUTHBRIDGE_LOG: Final = (
    'time=2026-11-28T10:00:00.000Z level=DEBUG msg="session: event appended" sessionId=s1 direction=inbound'
    " phase=request host=writer.shop subject={user} clientID={client} agent=spiffe://example.org/agent/crm proto=mcp"
    " method=tools/call"
)
CEF: Final = (
    "CEF:0|Example|Gateway|1.0|100|request|3|suser={user} act=allowed src={ip} requestMethod=GET"
    " request=https://crm.example.org/orders?k=secret requestClientApplication={agent}"
)
ENTRA_HEADER: Final = (
    "Date (UTC),Request ID,User agent,Correlation ID,User ID,User,Username,Application,"
    "Application ID,Resource,IP address"
)
ENTRA_ROW: Final = "2026-11-28T10:00:00Z,q1,{agent},c1,u1,Alice,{user},{app},a1,Graph,{ip}"


def kubernetes(user: str, **more: Any) -> dict[str, Any]:
    """Return an event of the audit log of an API server."""
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": "a1",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/pods?limit=500",
        "verb": "list",
        "user": {"username": user, "uid": "u1", "groups": ["system:authenticated"]},
        "sourceIPs": ["10.9.9.9"],
        "userAgent": "kubectl/v1.36.0",
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-11-28T10:00:00.000000Z",
        **more,
    }


def cloudtrail(identity: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a record of CloudTrail."""
    return {
        "eventVersion": "1.11",
        "userIdentity": identity,
        "eventTime": "2026-11-28T10:00:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "10.9.9.9",
        "userAgent": "aws-sdk/2",
        "eventID": "e1",
        "eventType": "AwsApiCall",
        **more,
    }


def assumed_role(role: str, session: str, **context: Any) -> dict[str, Any]:
    """Return the identity of a role's session."""
    return {
        "type": "AssumedRole",
        "principalId": f"AROAEXAMPLE:{session}",
        "arn": f"arn:aws:sts::111122223333:assumed-role/{role}/{session}",
        "accountId": "111122223333",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "arn": f"arn:aws:iam::111122223333:role/{role}",
                "userName": role,
            },
            "attributes": {"mfaAuthenticated": "false"},
            **context,
        },
    }


def iam_user(name: str) -> dict[str, Any]:
    """Return the identity of a user with keys."""
    return {
        "type": "IAMUser",
        "userName": name,
        "arn": f"arn:aws:iam::111122223333:user/{name}",
        "principalId": "AIDA1",
    }


def entra(**more: Any) -> dict[str, Any]:
    """Return a sign-in as the portal and Graph export it."""
    return {
        "id": "s1",
        "createdDateTime": "2026-11-28T10:00:00Z",
        "userDisplayName": "Alice",
        "userPrincipalName": "alice@example.org",
        "userId": "00000000-0000-0000-0000-00000000a11c",
        "appId": "00000000-0000-0000-0000-000000000011",
        "appDisplayName": "crm-portal",
        "ipAddress": "10.9.9.9",
        "correlationId": "c1",
        "isInteractive": False,
        "signInEventTypes": ["nonInteractiveUser"],
        "resourceDisplayName": "Microsoft Graph",
        "status": {"errorCode": 0},
        **more,
    }


def keycloak(kind: str, client: str, user: str | None = "u1", **details: str) -> dict[str, Any]:
    """Return a user event of Keycloak."""
    return {
        "id": "e1",
        "time": 1795860000000,
        "type": kind,
        "realmId": "r1",
        "realmName": "shop",
        "clientId": client,
        "userId": user,
        "ipAddress": "10.9.9.9",
        "details": details,
    }


def toolhive(user: str, chain: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return an event of ToolHive's audit."""
    hops = (
        {"chain": [{"sub": hop} for hop in chain], "truncated": False, "omitted": 0, "malformed": False}
        if chain
        else None
    )
    return {
        "time": "2026-11-28T10:00:00Z",
        "level": "INFO+2",
        "msg": "audit_event",
        "audit_id": "a1",
        "type": "mcp_tool_call",
        "logged_at": "2026-11-28T10:00:00Z",
        "outcome": "success",
        "component": "vmcp-server",
        "source": {"type": "network", "value": "10.9.9.9", "extra": {"user_agent": "mcp-client/1.0"}},
        "subjects": {"user": user, "user_id": "u1", "client_name": "my-mcp-client"},
        **({"delegation": hops} if hops else {}),
        "target": {"endpoint": "/messages", "method": "POST", "type": "tool", "name": "orders"},
        **more,
    }


def authbridge(direction: str, user: str, **more: Any) -> dict[str, Any]:
    """Return a session event of AuthBridge."""
    return {
        "sessionId": "s1",
        "at": "2026-11-28T10:00:00Z",
        "direction": direction,
        "phase": "request",
        "mcp": {"method": "tools/call"},
        "identity": {"subject": user, "scopes": ["orders"], "clientId": "front-app", "agentId": WRITER},
        "host": "crm.shop",
        **more,
    }


def envoy_json(**more: Any) -> dict[str, Any]:
    """Return a line of an Envoy whose JSON format has the claims of the verified token."""
    return {
        "start_time": "2026-11-28T10:00:00Z",
        "method": "GET",
        "path": "/orders?k=secret",
        "protocol": "HTTP/2",
        "response_code": 200,
        "response_flags": "-",
        "user-agent": "python-httpx/0.27",
        "downstream_remote_address": "10.9.9.9:1234",
        "upstream_host": "10.1.1.1:8080",
        **more,
    }


def istio_json(**more: Any) -> dict[str, Any]:
    """Return a line of Istio's default JSON."""
    return {
        "start_time": "2026-11-28T10:00:00Z",
        "route_name": "default",
        "method": "GET",
        "path": "/orders",
        "protocol": "HTTP/1.1",
        "response_code": 200,
        "response_flags": "-",
        "response_code_details": "via_upstream",
        "connection_termination_details": None,
        "bytes_received": 0,
        "bytes_sent": 12,
        "duration": 3,
        "upstream_service_time": "2",
        "x_forwarded_for": None,
        "user_agent": "python-httpx/0.27",
        "request_id": "5c9d0a53",
        "authority": "crm.shop:8080",
        "upstream_host": "10.1.1.1:8080",
        "upstream_cluster": "inbound|8080||",
        "upstream_local_address": "127.0.0.6:44591",
        "downstream_local_address": "10.1.1.1:8080",
        "downstream_remote_address": "10.9.9.9:53112",
        "requested_server_name": None,
        "upstream_transport_failure_reason": None,
        **more,
    }


def nginx_json(**more: Any) -> dict[str, Any]:
    """Return a line of nginx with a usual JSON format."""
    return {
        "time_iso8601": "2026-11-28T10:00:00+00:00",
        "remote_addr": "10.9.9.9",
        "remote_user": "",
        "request": "GET /orders?k=secret HTTP/1.1",
        "status": "200",
        "body_bytes_sent": "12",
        "http_referer": "",
        "http_user_agent": "python-httpx/0.27",
        **more,
    }


def agentgateway_json(**more: Any) -> dict[str, Any]:
    """Return a line of agentgateway with ``LOG_FORMAT=json``."""
    return {
        "level": "info",
        "time": "2026-11-28T10:00:00.547567Z",
        "scope": "request",
        "gateway": "bind/3000",
        "listener": "listener0",
        "route": "route0",
        "src.addr": "10.9.9.9:59257",
        "http.method": "POST",
        "http.path": "/mcp",
        "http.status": 200,
        **more,
    }


def text(line: str | dict[str, Any]) -> str:
    """Return a sample as one line."""
    return line if isinstance(line, str) else json.dumps(line)
