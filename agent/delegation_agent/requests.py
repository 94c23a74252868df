"""For requests: ``session.mount("http://", Adapter())``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from delegation_agent.handles import HEADER, handle
from delegation_agent.outbound import Outbound


class Adapter(HTTPAdapter):
    """Sends requests, and the handle with those to the sidecar. Options are those of ``HTTPAdapter``.

    The handle is added to a copy: the session makes redirected requests from its own, which never has the handle.
    """

    def __init__(self, *args: Any, outbound: str | None = None, **options: Any) -> None:
        self._outbound = Outbound(outbound)
        super().__init__(*args, **options)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send one request."""
        held = handle()
        if held is None or HEADER in request.headers or not self._is_for_sidecar(request, options.get("proxies")):
            return super().send(request, *args, **options)
        shown = request.copy()
        shown.headers[HEADER] = held
        response = super().send(shown, *args, **options)
        response.request = request
        return response

    def _is_for_sidecar(self, request: requests.PreparedRequest, proxies: Any) -> bool:
        url = request.url or ""
        if proxy := select_proxy(url, proxies):
            return url.lower().startswith("http:") and self._outbound.is_proxy(proxy)
        parts = urlsplit(url)  # as HTTPAdapter reads it
        return self._outbound.is_at(parts.scheme, parts.hostname, parts.port)
