"""Returns, as JSON, an ASGI server's view of a request. For uvicorn."""

from __future__ import annotations

import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the server's view."""
    if scope["type"] != "http":
        return
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    view = {
        "path": scope["root_path"] + "|" + scope["path"],
        "method": scope["method"],
        "scheme": scope["scheme"],
        "host": fields["host"],
        "client": scope["client"][0],
        "user": "",
        "fields": fields,
    }
    body = json.dumps(view).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
