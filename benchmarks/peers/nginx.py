"""nginx: as a plain mTLS proxy, and with njs that verifies tokens and caches the verdicts."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import GRPC, HTTP2, HTTP2_OPEN, Part, Peer, first_line, single
from benchmarks.world import AGENT, CALLER, World

_MODULES: Final = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_NJS: Final = "ngx_http_js_module.so"
_CONFIGURATION: Final = """
{user}{modules}worker_processes 1;
daemon off;
pid {folder}/{name}.pid;
error_log stderr error;
events {{ worker_connections 8000; }}
http {{
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
    log_format records escape=json '{{"ts":"$time_iso8601","peer":"$ssl_client_serial","client":"$remote_addr",'
        '"method":"$request_method","path":"$uri","status":$status,"bytes_out":$body_bytes_sent,'
        '"total_s":$request_time,"upstream_s":"$upstream_response_time"}}';
    access_log {folder}/{name}.access records buffer=64k flush=1s;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    upstream agent {{ server {agent}; keepalive 128; keepalive_requests 100000000; }}
{http}
    server {{
        listen {listen} ssl{http2};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {bundle};
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        ssl_session_tickets off;
        location / {{
{location}{onward}        }}
{server}    }}
}}
"""
_ONWARD: Final = """            proxy_pass http://agent;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
"""
_ONWARD_GRPC: Final = "            grpc_pass grpc://agent;\n"
# 0.7.9 has no shared dictionary: the verdict of the subrequest is cached by proxy_cache, keyed by Authorization.
_NJS_HTTP: Final = """
    js_path {folder};
    js_import check from {name}.js;
    proxy_cache_path {folder}/{name}-verdicts keys_zone=verdicts:16m max_size=256m inactive=10m;
    server {{
        listen {verifier};
        access_log off;
        location / {{ js_content check.verdict; }}
    }}
    upstream verifier {{ server {verifier}; keepalive 16; keepalive_requests 100000000; }}
"""
_NJS_LOCATION: Final = "            auth_request /_verdict;\n"
_NJS_SERVER: Final = """        location = /_verdict {{
            internal;
            access_log off;
            proxy_pass http://verifier/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_cache verdicts;
            proxy_cache_key $http_authorization;
            proxy_cache_valid 200 60s;
            proxy_cache_valid 401 403 5s;
            proxy_ignore_headers Cache-Control Expires;
        }}
"""
_SCRIPT: Final = """
async function verdict(r) {
    try {
        // Not outside: each request has a machine of its own, and 0.7.9 crashes on a promise of another.
        const key = await crypto.subtle.importKey("spki", Buffer.from("%(key)s", "base64"),
            {name: "ECDSA", namedCurve: "P-256"}, false, ["verify"]);
        const token = r.headersIn.Authorization.slice(7);
        const parts = token.split(".");
        const claims = JSON.parse(Buffer.from(parts[1], "base64url").toString());
        const header = JSON.parse(Buffer.from(parts[0], "base64url").toString());
        const good = header.alg === "ES256" && await crypto.subtle.verify({name: "ECDSA", hash: "SHA-256"}, key,
            Buffer.from(parts[2], "base64url"), Buffer.from(parts[0] + "." + parts[1]));
        if (!good || claims.exp * 1000 < Date.now() || claims.iss !== "%(issuer)s" || claims.aud !== "%(audience)s")
            r.return(401);
        else if (claims.act.sub !== "%(caller)s" || claims.scope.split(" ").indexOf("docs.read") < 0)
            r.return(403);
        else
            r.return(200);
    } catch (e) {
        r.return(401);
    }
}

export default {verdict};
"""


def plain() -> Peer:
    """mTLS and a log."""
    return single(
        "nginx",
        "nginx",
        does_not=("URI SAN", "any look at the token", "subject and actor in its log", "exchange of tokens"),
        missing=_missing,
        version=_version,
        launch=lambda world: _launch(world, "nginx"),
        over_http2={
            **dict.fromkeys((HTTP2, HTTP2_OPEN), lambda world, name: _launch(world, name, http2=True)),
            GRPC: lambda world, name: _launch(world, name, http2=True, onward=_ONWARD_GRPC, agent="agent-h2c"),
        },
    )


def with_njs() -> Peer:
    """The token's signature and claims by a script, its verdict cached for a minute."""
    return single(
        "nginx-njs",
        "nginx + njs, cached verdicts",
        does_not=(
            "URI SAN: act is compared with one fixed name",
            "exp while a verdict is cached",
            "subject and actor in its log",
        ),
        missing=_missing_njs,
        version=_version,
        launch=lambda world: _with_njs(world, "nginx-njs", http2=False),
        over_http2={HTTP2: lambda world, name: _with_njs(world, name, http2=True)},
        judges=True,
    )


def _missing() -> str | None:
    return missing("nginx", "apt-get install nginx")


def _module() -> Path | None:
    return next((folder / _NJS for folder in _MODULES if (folder / _NJS).exists()), None)


def _missing_njs() -> str | None:
    if _missing() is None and _module() is None:
        return "its njs module is not installed (apt-get install libnginx-mod-http-js)"
    return _missing()


def _version() -> str:
    return first_line([find("nginx") or "nginx", "-v"])


def _with_njs(world: World, name: str, *, http2: bool) -> Part:
    pem = world.public_key.read_text().splitlines()
    values = {"key": "".join(pem[1:-1]), "issuer": world.issuer, "audience": AGENT, "caller": CALLER}
    (world.folder / f"{name}.js").write_text(_SCRIPT % values)
    names = {"folder": world.folder, "name": name, "verifier": world.at(f"{name}-verifier")}
    return _launch(
        world,
        name,
        http2=http2,
        modules=f"load_module {_module()};\n",
        http=_NJS_HTTP.format(**names),
        location=_NJS_LOCATION,
        server=_NJS_SERVER.format(**names),
    )


def _launch(
    world: World,
    name: str,
    *,
    http2: bool = False,
    modules: str = "",
    http: str = "",
    location: str = "",
    server: str = "",
    onward: str = _ONWARD,
    agent: str = "agent",
) -> Part:
    identity = world.identities[AGENT]
    path = world.folder / f"{name}.conf"
    path.write_text(
        _CONFIGURATION.format(
            folder=world.folder,
            name=name,
            modules=modules,
            user=f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else "",
            http=http,
            location=location,
            server=server,
            http2=" http2" if http2 else "",
            onward=onward,
            agent=world.at(agent),
            listen=world.at(f"{name}-inbound"),
            certificate=identity.certificate,
            key=identity.key,
            bundle=world.bundle,
        )
    )
    return Part(
        name=name,
        command=[find("nginx") or "nginx", "-e", "stderr", "-c", str(path)],
        listens=(f"{name}-inbound",),
    )
