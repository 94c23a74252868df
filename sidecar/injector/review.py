"""Strict parser and builder for AdmissionReview of admission.k8s.io/v1."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.injector.fields import MalformedError, flag, mapping, text

MAX_BYTES: Final = 1536 * 1024  # etcd's own limit: no pod is larger
_MAX_DEPTH: Final = 48  # managedFields and affinities are the deepest parts of a pod
_MAX_UID: Final = 128
_VERSION: Final = "admission.k8s.io/v1"
_MAX_PARTS: Final = 65_536  # values of all objects and lists: many times those of a pod of many containers
_MAX_MESSAGE: Final = 2048
_POD: Final = {"group": "", "version": "v1", "kind": "Pod"}
_QUESTIONS: Final = frozenset({("CREATE", ""), ("UPDATE", "resize"), ("UPDATE", "ephemeralcontainers")})
_PODS: Final = {"group": "", "version": "v1", "resource": "pods"}


class ReviewError(ValueError):
    """The request is no review for this webhook. The message quotes none of it. ``uid`` is empty if unknown."""

    def __init__(self, message: str, uid: str = "") -> None:
        super().__init__(message)
        self.uid = uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A request to create ``pod`` in ``namespace``. ``name`` may end in a dash, for a generated name.

    With a ``subresource``, a request to change an existing pod from ``old`` to ``pod``.
    """

    uid: str
    subresource: str
    namespace: str
    name: str
    user: str
    dry_run: bool
    pod: Mapping[str, object]
    old: Mapping[str, object]


def parse_review(body: bytes) -> Review:
    """Parse a review of a pod's creation, resize or new debugger.

    Raises:
        ReviewError: the body is another request, ambiguous, too large or too deep.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_PARTS:  # a parser needs a hundred bytes for each
        raise ReviewError("it has too many parts")
    try:
        members = parse_object(body, max_bytes=MAX_BYTES, max_depth=_MAX_DEPTH)
        if text(members, "apiVersion") != _VERSION or text(members, "kind") != "AdmissionReview":
            raise ReviewError(f"it is not an AdmissionReview of {_VERSION}")
        request = mapping(members, "request")
        if members.get("response") is not None or not request:
            raise ReviewError("it has no request")
        uid = text(request, "uid")
    except (StrictJsonError, MalformedError) as error:
        raise ReviewError(str(error)) from error
    if not 0 < len(uid) <= _MAX_UID:
        raise ReviewError("uid is missing or too long")
    try:
        return _review(uid, request)
    except MalformedError as error:
        raise ReviewError(str(error), uid) from error


def _review(uid: str, request: Mapping[str, object]) -> Review:
    pod = mapping(request, "object")
    metadata = mapping(pod, "metadata")
    namespace = text(request, "namespace")
    subresource = text(request, "subResource")
    if (text(request, "operation"), subresource) not in _QUESTIONS:
        raise ReviewError("it is not about the creation, a resize or a debugger of a pod", uid)
    if mapping(request, "kind") != _POD or mapping(request, "resource") != _PODS:
        raise ReviewError("it is not about a pod of v1", uid)
    if (text(pod, "apiVersion"), text(pod, "kind")) != ("v1", "Pod"):
        raise ReviewError("its object is not a pod of v1", uid)
    if not namespace or text(metadata, "namespace") not in ("", namespace):
        raise ReviewError("it names no namespace", uid)
    return Review(
        uid=uid,
        subresource=subresource,
        namespace=namespace,
        name=text(request, "name") or text(metadata, "name") or text(metadata, "generateName"),
        user=text(mapping(request, "userInfo"), "username"),
        dry_run=flag(request, "dryRun"),
        pod=pod,
        old=mapping(request, "oldObject"),
    )


def allow(review: Review, patch: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> bytes:
    """Build the answer that allows the pod, changed by ``patch``."""
    response: dict[str, object] = {"uid": review.uid, "allowed": True}
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(patch)).decode()}
    if warnings:
        response["warnings"] = list(warnings)
    return _answer(response)


def refuse(uid: str, message: str, *, code: int = 403) -> bytes:
    """Build the answer that refuses the review: 403 by a rule, 400 not a review for us, 502 a bug."""
    reason = {400: "BadRequest", 403: "Forbidden", 502: "InternalError"}[code]
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}…"
    status = {"code": code, "reason": reason, "message": message}
    return _answer({"uid": uid, "allowed": False, "status": status})


def _answer(response: Mapping[str, object]) -> bytes:
    return orjson.dumps({"apiVersion": _VERSION, "kind": "AdmissionReview", "response": response})
