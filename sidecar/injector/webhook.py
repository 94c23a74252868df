"""The webhook without its sockets: one AdmissionReview in, one answer out, one record and one count of it.

An API server presents no certificate, so anyone who reaches the port may send a review. Answers reveal only the
definition of the sidecar; the remaining threat is load. So bodies must state their length, large ones are parsed one at
a time, and records are rate-limited (``REVIEWS``, and ``RecordRate`` for invalid reviews).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from sidecar.injector.inject import Injected, RefusedError, inject, judge_change
from sidecar.injector.injection import Injection
from sidecar.injector.metrics import INJECTED, INTERNAL, NO_REVIEW, UNCHANGED, UNRECORDED, InjectorMetrics
from sidecar.injector.review import MAX_BYTES, Review, ReviewError, allow, parse_review, refuse
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.serving.connections import served

PATH: Final = "/inject"
REVIEWS: Final = RecordRate(per_s=100.0, burst=1000)  # records of reviews; a roll-out creates thousands of pods
LARGE: Final = 128 * 1024  # a usual pod is a tenth of it
_JSON: Final = "application/json"
_LOG: Final = logging.getLogger(__name__)


class Webhook:
    """Answers by the ``injection`` in force, which may be replaced at any time."""

    def __init__(
        self,
        injection: Injection,
        *,
        log: AccessLog,
        metrics: InjectorMetrics,
        unproven: UnprovenRecords | None = None,
        reviews: RecordRate | None = None,
    ) -> None:
        """``unproven`` limits the records of invalid reviews, ``reviews`` those of reviews: anybody can send both."""
        self.injection = injection
        self._log = log
        self._metrics = metrics
        self._large = asyncio.Lock()
        self._unproven = unproven or UnprovenRecords(log)
        self._reviews = UnprovenRecords(log, reviews or REVIEWS)

    def app(self) -> web.Application:
        """Application with one route, for a listener with TLS."""
        app = web.Application(client_max_size=MAX_BYTES, middlewares=[self._count_refused])
        app.router.add_post(PATH, self._post)
        return app

    def answer(self, body: bytes) -> bytes:
        """Answer one AdmissionReview.

        Raises:
            ReviewError: the body is no review and has no usable uid. The API server refuses the pod if a call fails.
        """
        try:
            review = parse_review(body)
        except ReviewError as error:
            self.no_review(str(error), error.uid)
            if not error.uid:
                raise
            return refuse(error.uid, f"sidecar injector: {error}; register the webhook as the chart does", code=400)
        try:
            if review.subresource:
                judge_change(review.pod, review.old, self.injection, review.namespace)
                done = Injected([], [])
            else:
                done = inject(review.pod, self.injection, review.namespace)
        except RefusedError as error:
            return self._refuse(review, error)
        except Exception as error:  # noqa: BLE001 - a bug refuses this pod, and ends nothing
            _LOG.error("review failed", extra={"bug": type(error).__name__, "request_id": review.uid})
            self._metrics.count_refused(INTERNAL)
            self._tell("pod.refused", review, INTERNAL, f"a bug: {type(error).__name__}")
            return refuse(review.uid, "sidecar injector: internal; look for the request id in its log", code=502)
        rule = INJECTED if done.patch else UNCHANGED
        self._metrics.count_allowed(rule)
        self._tell("pod.injected", review, rule, f"definition {self.injection.digest}")
        return allow(review, done.patch, done.warnings)

    def _refuse(self, review: Review, error: RefusedError) -> bytes:
        rule = error.refusals[0].rule
        self._metrics.count_refused(rule)
        self._tell("pod.refused", review, rule, str(error))
        return refuse(review.uid, f"sidecar injector: {error}")

    def no_review(self, why: str, uid: str = "") -> None:
        """Count an invalid review, and record it within the listener's rate."""
        self._metrics.count_refused(NO_REVIEW)
        if self._unproven.take():
            self._log.event(
                "pod.refused",
                decision="deny",
                op=NO_REVIEW,
                request_id=uid or None,
                detail=why,
                suppressed=self._unproven.suppressed(),
            )

    def _tell(self, event: str, review: Review, rule: str, detail: str) -> None:
        if not self._reviews.take():
            return
        dry = "dry run; " if review.dry_run else ""
        self._log.event(
            event,
            decision="allow" if event == "pod.injected" else "deny",
            op=rule,
            path=f"{review.namespace}/{review.name}",
            request_id=review.uid,
            detail=f"{dry}by {review.user}: {detail}",
            suppressed=self._reviews.suppressed(),
        )

    @web.middleware
    async def _count_refused(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as refused:
            self.no_review(f"HTTP {refused.status}: {refused.reason}")
            raise

    async def _post(self, request: web.Request) -> web.Response:
        if request.content_type != _JSON or hdrs.CONTENT_ENCODING in request.headers:
            raise web.HTTPUnsupportedMediaType
        length = request.content_length
        if length is None:
            raise web.HTTPLengthRequired
        if length > MAX_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=MAX_BYTES, actual_size=length)
        body = await _whole(request, length)
        if body is None:
            self.no_review("the body did not arrive")
            return web.Response(status=400, text="the body did not arrive\n")
        with served(request):
            if not self._log.healthy:  # the API server treats it as a failed call, and asks another replica next time
                self._metrics.count_refused(UNRECORDED)
                return web.Response(status=503, text=f"{UNRECORDED}\n")
            if length <= LARGE:
                return self._respond(body)
            async with self._large:
                await asyncio.sleep(0)  # smaller reviews go first
                return self._respond(body)

    def _respond(self, body: bytes) -> web.Response:
        try:
            return web.Response(body=self.answer(body), content_type=_JSON)
        except ReviewError as error:
            return web.Response(status=400, text=f"{error}\n")


async def _whole(request: web.Request, length: int) -> bytes | None:
    """Return the complete body; None if it failed, or has another length. Releases the parts of a failed body.

    The library keeps the error that ended the body, which refers to the reader: a cycle that would hold the body until
    the garbage collector runs.
    """
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
    except (web.RequestPayloadError, OSError) as error:
        error.__traceback__ = None
        return None
    return bytes(body) if len(body) == length else None
