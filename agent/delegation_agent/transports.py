"""Transports for the two libraries ``httpx`` and ``httpx2``, which share one interface; imports neither."""

from __future__ import annotations

from typing import Any, ClassVar

from delegation_agent.handles import HEADER, handle
from delegation_agent.outbound import Outbound, bypasses_proxy, environment_proxy


class Choice:
    """Chooses the way of a request, directly or by the environment's proxy, and adds the handle to one to the sidecar.

    Works below the client, on each outgoing request, so a redirect is a request of its own. The handle is added to a
    copy: the client makes redirected requests from its own, which never has the handle.
    """

    library: ClassVar[Any]

    def __init__(self, kind: Any, outbound: str | None, options: dict[str, Any]) -> None:
        self._outbound = Outbound(outbound)
        self._direct = kind(**options)
        proxy = environment_proxy()
        self._proxied = kind(proxy=proxy, **options) if proxy else None
        self._is_proxy = proxy is not None and self._outbound.is_proxy(proxy)

    @property
    def patterns(self) -> tuple[str, str]:
        """The URL patterns to mount it at.

        The sidecar's own address is one: httpx mounts each host of NO_PROXY, often 127.0.0.1, before all plain HTTP.
        """
        return "http://", self._outbound.origin

    def chosen(self, request: Any) -> tuple[Any, Any]:
        """Return the transport that sends a request, and the request to send."""
        url = request.url
        if self._outbound.is_at(url.scheme, url.host, url.port):
            return self._direct, self._render(request)  # also where HTTP_PROXY names any other proxy
        if self._proxied is None or url.scheme != "http" or bypasses_proxy(url.host):
            return self._direct, request
        return self._proxied, self._render(request) if self._is_proxy else request

    def _render(self, request: Any) -> Any:
        held = handle()
        if held is None or HEADER in request.headers:
            return request
        fields = request.headers.copy()
        fields[HEADER] = held
        return self.library.Request(
            request.method, request.url, headers=fields, stream=request.stream, extensions=request.extensions
        )


class SharedTransport(Choice):
    """The part of ``Transport`` that httpx and httpx2 share."""

    def __init__(self, *, outbound: str | None = None, **options: Any) -> None:
        super().__init__(self.library.HTTPTransport, outbound, options)

    def handle_request(self, request: Any) -> Any:
        """Send one request."""
        transport, shown = self.chosen(request)
        return transport.handle_request(shown)

    def close(self) -> None:
        """Close all connections."""
        for transport in (self._direct, self._proxied):
            if transport is not None:
                transport.close()


class SharedAsyncTransport(Choice):
    """The part of ``AsyncTransport`` that httpx and httpx2 share."""

    def __init__(self, *, outbound: str | None = None, **options: Any) -> None:
        super().__init__(self.library.AsyncHTTPTransport, outbound, options)

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request."""
        transport, shown = self.chosen(request)
        return await transport.handle_async_request(shown)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._direct, self._proxied):
            if transport is not None:
                await transport.aclose()
