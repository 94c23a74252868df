"""Checks the agent card of an A2A program: an address that is not a sidecar's leads clients past the mesh."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Final

PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")
_MAX_BYTES: Final = 256 * 1024


def stray_addresses(document: bytes, ours: str) -> list[str]:
    """Return the interfaces of a card that are not at ``ours`` or below it; nothing if the document is no card."""
    try:
        card = json.loads(document)
    except ValueError:
        return []
    if not isinstance(card, dict):
        return []
    found = [card, *(card.get("supportedInterfaces") or []), *(card.get("additionalInterfaces") or [])]
    urls = [one.get("url") for one in found if isinstance(one, dict)]
    here = ours.rstrip("/")
    return sorted({url for url in urls if isinstance(url, str) and url != here and not url.startswith(f"{here}/")})


def card_of(port: int) -> bytes | None:
    """Return the card of the program that listens on a port of loopback; None: it has none.

    Raises:
        http.client.BadStatusLine: the program does not answer in HTTP/1.1.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in PATHS:
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as response:
                return bytes(response.read(_MAX_BYTES))
        except (urllib.error.URLError, OSError, ValueError):
            pass
    return None


def warnings(port: int, ours: str, *, rewritten: bool) -> list[str]:
    """Return warnings for the program's operator; ``rewritten``: the sidecar serves its card with other addresses."""
    try:
        document = card_of(port)
    except http.client.BadStatusLine:
        return [
            "warning: the agent does not answer in HTTP/1.1, so calls get 503 upstream_unreachable:"
            " if it serves gRPC, add --grpc agent"
        ]
    strays = [] if document is None or rewritten else stray_addresses(document, ours)
    if not strays:
        return []
    return [
        f"warning: the agent's card names {', '.join(strays)}, which is no sidecar's: a client that follows it goes"
        " past the mesh, with its own credential",
        f"  name {ours} there, or add --a2a agent, and the sidecar rewrites the card",
    ]
