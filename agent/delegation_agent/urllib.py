"""For urllib: ``urllib.request.build_opener(Handler())``."""

from __future__ import annotations

import copy
import urllib.request
from http.client import HTTPResponse
from urllib.parse import urlsplit

from delegation_agent.handles import HEADER, handle
from delegation_agent.outbound import Outbound


class Handler(urllib.request.HTTPHandler):
    """Sends requests by plain HTTP, and the handle with those to the sidecar.

    The handle is added to a copy: redirected requests are made from the original, which never has the handle.
    """

    def __init__(self, *, outbound: str | None = None) -> None:
        self._outbound = Outbound(outbound)
        super().__init__()

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """Send one request. Its ``host`` is that of the proxy, where there is one."""
        held = handle()
        if held is not None and not request.has_header(HEADER.capitalize()) and self._is_for_sidecar(request):
            request = copy.copy(request)
            request.unredirected_hdrs = {**request.unredirected_hdrs, HEADER.capitalize(): held}
        return super().http_open(request)

    def _is_for_sidecar(self, request: urllib.request.Request) -> bool:
        try:
            parts = urlsplit(f"//{request.host}")
            return "@" not in request.host and self._outbound.is_at(request.type, parts.hostname, parts.port)
        except ValueError:
            return False
