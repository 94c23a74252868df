"""The webhook without its sockets: one AdmissionReview in, one answer out, one record and one count of it."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection
from sidecar.injector.metrics import INJECTED, NO_REVIEW, UNCHANGED, InjectorMetrics
from sidecar.injector.review import MAX_BYTES, Review, ReviewError, allowed, parse_review, refused
from sidecar.observe.access_log import AccessLog

PATH: Final = "/inject"
_JSON: Final = "application/json"


class Webhook:
    """Answers by the ``injection`` in force, which may be put in another's place at any time."""

    def __init__(self, injection: Injection, *, log: AccessLog, metrics: InjectorMetrics) -> None:
        self.injection = injection
        self._log = log
        self._metrics = metrics

    def app(self) -> web.Application:
        """The one path, for a listener with TLS."""
        app = web.Application(client_max_size=MAX_BYTES)
        app.router.add_post(PATH, self._post)
        return app

    def answer(self, body: bytes) -> bytes:
        """The answer to one AdmissionReview.

        Raises:
            ReviewError: it is none that could be answered. Nobody is let through for that: the API server takes it as a
                failed call.
        """
        try:
            review = parse_review(body)
        except ReviewError as error:
            self._metrics.refused(NO_REVIEW)
            self._log.event(
                "pod.refused", decision="deny", op=NO_REVIEW, request_id=error.uid or None, detail=str(error)
            )
            if not error.uid:
                raise
            return refused(error.uid, f"sidecar injector: {error}; register the webhook as the chart does", code=400)
        try:
            done = inject(review.pod, self.injection)
        except RefusedError as error:
            return self._refuse(review, error)
        rule = INJECTED if done.patch else UNCHANGED
        self._metrics.allowed(rule)
        self._tell("pod.injected", review, rule, f"definition {self.injection.digest}")
        return allowed(review, done.patch, done.warnings)

    def _refuse(self, review: Review, error: RefusedError) -> bytes:
        rule = error.refusals[0].rule
        self._metrics.refused(rule)
        self._tell("pod.refused", review, rule, str(error))
        return refused(review.uid, f"sidecar injector: {error}")

    def _tell(self, event: str, review: Review, rule: str, detail: str) -> None:
        dry = "dry run; " if review.dry_run else ""
        self._log.event(
            event,
            decision="allow" if event == "pod.injected" else "deny",
            op=rule,
            path=f"{review.namespace}/{review.name}",
            request_id=review.uid,
            detail=f"{dry}by {review.user}: {detail}",
        )

    async def _post(self, request: web.Request) -> web.Response:
        if request.content_type != _JSON or hdrs.CONTENT_ENCODING in request.headers:
            raise web.HTTPUnsupportedMediaType
        try:
            return web.Response(body=self.answer(await request.read()), content_type=_JSON)
        except ReviewError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
