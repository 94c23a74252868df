"""Returns, as JSON, a WSGI server's view of a request. For gunicorn and waitress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the server's view."""
    view = {
        "path": environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"],
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "host": environ["HTTP_HOST"],
        "client": environ["REMOTE_ADDR"],
        "user": environ.get("REMOTE_USER", ""),
        "fields": {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")},
    }
    body = json.dumps(view).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
