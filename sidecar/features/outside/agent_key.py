"""Adds the static key that the agent expects of its callers to permitted requests.

The agent of an existing system may check a key in some field, often in ``Authorization``, where a delegated request has
its handle. The sidecar holds that key, so that callers no longer need it. A request that passes only because its route
observes keeps its caller's key and never gets this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delegation_core.permit import Permit
from sidecar.features.outside.static_keys import StaticKeys
from sidecar.proxy.journeys.headers import passes_to_mesh, to_agent
from sidecar.wire.message import Edits, Request


@dataclass(frozen=True, slots=True)
class AgentKeySettings:
    """``file`` with the key, (lower-case) header ``field`` for it, and ``scheme``, the text before it in the field."""

    file: str
    field: str
    scheme: str


class AgentKey:
    """Makes the edits of ``to_agent``, with the key as the only value of its field."""

    def __init__(self, settings: AgentKeySettings, keys: StaticKeys | None = None) -> None:
        self._settings = settings
        self._field, self._scheme = settings.field.encode("ascii"), settings.scheme.encode("ascii")
        self._keys = keys or StaticKeys()
        self._keys.first_look_at_start(settings.file)
        self._rule = self._passes  # the same object each time: the wire caches results by rule

    def edits(self, request: Request, permit: Permit, identity: tuple[bytes, ...], **told: Any) -> Edits:
        """Return the edits to a permitted request.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, as ``StaticKeys.of``.
        """
        _, names, values = to_agent(request, permit, identity, **told)
        key = self._scheme + self._keys.of(self._settings.file).value
        others = [one for one in zip(names, values, strict=True) if one[0] != self._field]
        return Edits(self._rule, *map(tuple, zip(*others, (self._field, key), strict=True)))

    def _passes(self, name: bytes) -> bool:
        return name != self._field and passes_to_mesh(name)
