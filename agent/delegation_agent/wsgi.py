"""WSGI middleware that keeps the handle of the request being served: Flask, Django, Bottle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from delegation_agent.handles import HEADER, Pieces, serving, sole

_KEY: Final = "HTTP_" + HEADER.upper().replace("-", "_")  # two lines arrive joined by a comma, which no handle has


class HandleMiddleware:
    """Serves each request with its own handle, or with none, its streamed body too."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of WSGI."""
        held = sole([environ[_KEY]] if _KEY in environ else [])
        with serving(held):
            body = self.app(environ, start_response)
        if isinstance(body, list | tuple):  # complete: no code of the application is left to run
            return body
        return _Body(body, held)


class _Body(Pieces[bytes]):
    """A body that is made piece by piece, each with the request's handle."""

    def close(self) -> None:
        """Close the application's body, as every WSGI server does at the end."""
        if (close := getattr(self._whole, "close", None)) is not None:
            with serving(self._held):
                close()
