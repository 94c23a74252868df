"""A front app with nothing but Python's standard library: docs/front-apps.md shows it."""

import json
import os
import secrets
import urllib.error
import urllib.request
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIDECAR = os.environ.get("SIDECAR_OUTBOUND_URL", "http://127.0.0.1:7080")
CALLBACK = os.environ.get("CALLBACK_URL", "https://app.acme.example/callback")  # in entry.redirect_uris
ROUTE, TARGET = os.environ.get("ROUTE", "crm"), os.environ.get("TARGET", "/crm/customers/42")

sessions: dict[str, dict[str, str]] = {}  # by the cookie's value


def ask(path: str, body: dict[str, str] | None = None, **fields: str) -> bytes:
    """Make a request to the sidecar. What it refuses raises HTTPError, with the reason in Delegation-Reason."""
    fields["Content-Type"] = "application/json"
    request = urllib.request.Request(SIDECAR + path, json.dumps(body or {}).encode(), fields)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


class FrontApp(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        cookie = SimpleCookie(self.headers.get("Cookie", ""))
        name = cookie["session"].value if "session" in cookie else ""
        session = sessions.get(name, {})
        path, _, query = self.path.partition("?")
        try:
            if path == "/login":
                self.begin()
            elif path == "/callback" and "login" in session:
                self.go_on(name, session, {"callback": query})  # the whole query, unread
            elif path == "/wait" and "login" in session:
                self.go_on(name, session, {})
            elif path == "/" and "handle" in session:
                self.page(ask(TARGET, Authorization=f"Bearer {session['handle']}"))
            else:
                self.redirect("/login")
        except urllib.error.HTTPError as error:  # say no more than this: another login may help
            self.page(b"Refused: " + error.headers.get("Delegation-Reason", "unknown").encode(), status=403)

    def begin(self) -> None:
        """Begin a login in a session of its own, whatever cookie the browser came with."""
        name, binding = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        asked = {"route": ROUTE, "session": binding, "redirect_uri": CALLBACK, "reason": "to show your customers"}
        told = json.loads(ask("/.sidecar/logins", asked))
        sessions[name] = {"login": told["login"], "binding": binding}
        self.redirect(told.get("url", "/wait"), cookie=name)  # no url: the user is asked elsewhere

    def go_on(self, name: str, session: dict[str, str], more: dict[str, str]) -> None:
        """Continue the session's own login, and no other."""
        told: dict[str, Any] = json.loads(
            ask(f"/.sidecar/logins/{session['login']}", {"session": session["binding"], **more})
        )
        if told["status"] == "pending":
            self.page(b"Waiting for your answer", Refresh=str(told.get("poll_after_s", 5)))
            return
        del sessions[name]  # a fresh cookie: nobody knows it who knew the one before the login
        fresh = secrets.token_urlsafe(32)
        sessions[fresh] = {"handle": told["handle"], "user": told["subject"]}
        self.redirect("/", cookie=fresh)

    def redirect(self, to: str, cookie: str | None = None) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        if cookie is not None:
            self.send_header("Set-Cookie", f"session={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax")
        self.end_headers()

    def page(self, body: bytes, status: int = 200, **fields: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Cache-Control": "no-store", **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), FrontApp).serve_forever()
