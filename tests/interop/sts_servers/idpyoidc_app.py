"""idpyoidc behind http.server, as its manual says. ``/seed`` stands for the login page: it starts a user's session.

Runs in a Python of its own (``launch_idpyoidc``): ``idpyoidc_app.py PORT SETTINGS``, SETTINGS being a JSON file.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from idpyoidc.message.oidc import AuthorizationRequest
from idpyoidc.server import Server
from idpyoidc.server.authn_event import create_authn_event
from idpyoidc.server.configure import ASConfiguration
from idpyoidc.server.exception import ClientAuthenticationError, UnAuthorizedClient, UnknownClient
from idpyoidc.server.user_authn.authn_context import INTERNETPROTOCOLPASSWORD
from idpyoidc.server.user_info import UserInfo

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPES: Final = ["urn:ietf:params:oauth:token-type:access_token"]
_KEYS: Final = [{"type": "EC", "crv": "P-256", "use": ["sig"]}]


def settings_of(issuer: str, audiences: list[str], scopes: list[str]) -> dict[str, Any]:
    """Return the library's settings. Access tokens are JWTs, and everybody's may be exchanged for these audiences."""
    policy = {
        "function": "idpyoidc.server.oauth2.token_helper.validate_token_exchange_policy",
        "kwargs": {"audience": audiences, "resource": audiences},
    }
    exchange = {
        "class": "idpyoidc.server.oidc.token_helper.token_exchange.TokenExchangeHelper",
        "kwargs": {
            "subject_token_types_supported": _TYPES,
            "requested_token_types_supported": _TYPES,
            "policy": {"": policy},
        },
    }
    return {
        "issuer": issuer,
        "preference": {"subject_types_supported": ["public"], "scopes_supported": ["openid", *scopes]},
        "keys": {"uri_path": "jwks.json", "key_defs": _KEYS},
        "endpoint": {
            "provider_config": {
                "path": ".well-known/openid-configuration",
                "class": "idpyoidc.server.oidc.provider_config.ProviderConfiguration",
                "kwargs": {},
            },
            "token": {
                "path": "token",
                "class": "idpyoidc.server.oidc.token.Token",  # its oauth2 sibling reads the body as JSON
                "kwargs": {
                    "client_authn_method": ["client_secret_basic", "client_secret_post"],
                    "grant_types_helpers": {_EXCHANGE: exchange},
                },
            },
        },
        "authentication": {
            "anon": {
                "acr": INTERNETPROTOCOLPASSWORD,
                "class": "idpyoidc.server.user_authn.user.NoAuthn",
                "kwargs": {"user": "alice"},
            }
        },
        "userinfo": {"class": UserInfo, "kwargs": {"db": {"alice": {}, "bob": {}}}},
        "authz": {
            "class": "idpyoidc.server.authz.AuthzHandling",
            "kwargs": {
                "grant_config": {
                    "usage_rules": {"access_token": {"supports_minting": ["access_token"], "expires_in": 300}},
                    "expires_in": 3600,
                }
            },
        },
        "token_handler_args": {
            "token": {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 300}}
        },
        "session_params": {"password": "of this run", "salt": "of this run"},
    }


class Application:
    """The library's server, one request at a time."""

    def __init__(self, issuer: str, known: dict[str, Any]) -> None:
        self._server = Server(
            ASConfiguration(conf=settings_of(issuer, known["audiences"], known["scopes"]), base_path="."), cwd="."
        )
        self._context = self._server.context
        self._lock = threading.Lock()
        for client_id, secret in known["clients"].items():
            self._context.cdb[client_id] = {
                "client_secret": secret,
                "client_salt": "of this run",
                "redirect_uris": [(f"{issuer}/callback", None)],
                "response_types": ["code"],
                "grant_types_supported": [_EXCHANGE],
                "allowed_scopes": ["openid", *known["scopes"]],
            }

    def get(self, path: str) -> tuple[int, str]:
        if path == "/jwks.json":
            return 200, str(self._server.keyjar.export_jwks_as_json())
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self._context.provider_info)
        return 404, "{}"

    def post(self, path: str, body: str, authorization: str | None) -> tuple[int, str]:
        with self._lock:
            return self._seed(parse_qs(body)) if path == "/seed" else self._token(body, authorization)

    def _token(self, body: str, authorization: str | None) -> tuple[int, str]:
        endpoint = self._server.get_endpoint("token")
        headers = {"authorization": authorization} if authorization else {}
        try:
            request = endpoint.parse_request(body, http_info={"headers": headers})
        except (UnAuthorizedClient, UnknownClient, ClientAuthenticationError):
            return 401, json.dumps({"error": "invalid_client"})
        if "error" in request:
            return 400, str(request.to_json())
        arguments = endpoint.process_request(request)
        if "error" in arguments:
            return 400, str(arguments.to_json())
        return 200, str(endpoint.do_response(request=request, **arguments)["response"])

    def _seed(self, form: dict[str, list[str]]) -> tuple[int, str]:
        (user,), (client_id,), asked = form["user"], form["client_id"], form["scope"][0].split()
        scopes = [one for one in asked if not one.startswith("may_act:")]
        may_act = [one.removeprefix("may_act:") for one in asked if one not in scopes]
        if may_act:  # a claim about the user, as far as the library is concerned
            self._context.userinfo.db[user]["may_act"] = {"sub": may_act[0]}
        request = AuthorizationRequest(
            client_id=client_id,
            redirect_uri=f"{self._context.issuer}/callback",
            scope=scopes,
            state="of this run",
            response_type="code",
        )
        sessions = self._context.session_manager
        session_id = sessions.create_session(create_authn_event(user), request, user, client_id=client_id)
        grant = self._context.authz(session_id, request)
        token = grant.mint_token(
            session_id=session_id,
            context=self._context,
            token_class="access_token",
            token_handler=sessions.token_handler["access_token"],
            scope=scopes,
            claims=["may_act"] if may_act else None,
        )
        sessions.set(sessions.unpack_session_key(session_id), grant)
        return 200, json.dumps({"access_token": token.value})


class Handler(BaseHTTPRequestHandler):
    """Passes requests to the application; an exception of the library's is a 500, as under most frameworks."""

    application: Application

    def do_GET(self) -> None:
        self._answer(*self.application.get(urlsplit(self.path).path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
        try:
            answer = self.application.post(urlsplit(self.path).path, body, self.headers.get("authorization"))
        except Exception as error:  # noqa: BLE001 - see the class
            self.log_error("%r", error)
            answer = 500, "{}"
        self._answer(*answer)

    def _answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    _, number, file = sys.argv
    Handler.application = Application(f"http://127.0.0.1:{number}", json.loads(Path(file).read_text()))
    ThreadingHTTPServer(("127.0.0.1", int(number)), Handler).serve_forever()
