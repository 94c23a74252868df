"""Returns, as JSON, Flask's view of a request."""

from __future__ import annotations

from typing import Any

from flask import Flask, request

app = Flask(__name__)


def view(_path: str) -> dict[str, Any]:
    """Answer with the framework's view."""
    return {
        "path": request.script_root + "|" + request.path,
        "method": request.method,
        "scheme": request.scheme,
        "host": request.host,
        "client": request.remote_addr,
        "user": request.remote_user or "",
        "fields": dict(request.headers),
    }


app.add_url_rule("/<path:_path>", view_func=view, methods=["GET", "POST", "PUT", "DELETE"])
