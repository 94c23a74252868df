"""A front app with nothing but Python's standard library: people log in at Keycloak, and three agents act for them."""

import hashlib
import json
import os
import secrets
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode

KEYCLOAK = os.environ.get("ISSUER", "http://127.0.0.1:8080/realms/acme") + "/protocol/openid-connect"
SIDECAR = "http://127.0.0.1:7081"
BASE = "http://127.0.0.1:8000"  # http://127.0.0.1:8000/callback is the client's redirect URI

sessions: dict[str, dict[str, str]] = {}  # by the cookie's value


def post(url: str, form: dict[str, str] | None = None, **headers: str) -> bytes:
    """Make a request. What is refused raises HTTPError."""
    request = urllib.request.Request(url, urlencode(form or {}).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


class FrontApp(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        cookie = SimpleCookie(self.headers.get("Cookie", ""))
        name = cookie["session"].value if "session" in cookie else ""
        session = sessions.get(name, {})
        path, _, query = self.path.partition("?")
        try:
            if path == "/" and "handle" in session:
                self.page(200, post(f"{SIDECAR}/planner/ask", Authorization=f"Bearer {session['handle']}"))
            elif path == "/callback" and "verifier" in session:
                self.end_login(name, session, dict(parse_qsl(query)))
            elif path == "/":
                self.begin_login()
            else:
                self.page(404, b"nothing here")
        except urllib.error.HTTPError as error:
            sessions.pop(name, None)  # a handle ends with its token: the next visit logs in again
            reason = error.headers.get("Delegation-Reason") or "by Keycloak"
            self.page(error.code, b"refused: " + reason.encode() + b"\n" + error.read())

    def begin_login(self) -> None:
        name, state, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        sessions[name] = {"state": state, "verifier": verifier}
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"response_type": "code", "client_id": "front", "redirect_uri": f"{BASE}/callback", "scope": "openid"}
        asked |= {"state": state, "code_challenge": challenge, "code_challenge_method": "S256"}
        self.redirect(f"{KEYCLOAK}/auth?{urlencode(asked)}", cookie=name)

    def end_login(self, name: str, session: dict[str, str], answer: dict[str, str]) -> None:
        """Redeem the code for a token, and trade the token for a handle, which the sidecar keeps the token for."""
        del sessions[name]  # once, and a fresh cookie: nobody knows it who knew the one before the login
        if not secrets.compare_digest(answer.get("state", "").encode(), session["state"].encode()):
            self.page(403, b"another login's answer")
            return
        code = {"grant_type": "authorization_code", "client_id": "front", "redirect_uri": f"{BASE}/callback"}
        code |= {"code": answer.get("code", ""), "code_verifier": session["verifier"]}
        token = json.loads(post(f"{KEYCLOAK}/token", code))["access_token"]
        told = json.loads(post(f"{SIDECAR}/.sidecar/subject", Authorization=f"Bearer {token}"))
        fresh = secrets.token_urlsafe(32)
        sessions[fresh] = {"handle": told["handle"]}
        self.redirect("/", cookie=fresh)

    def redirect(self, to: str, *, cookie: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Set-Cookie", f"session={cookie}; Path=/; HttpOnly; SameSite=Lax")  # with https: Secure too
        self.end_headers()

    def page(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8000), FrontApp).serve_forever()
