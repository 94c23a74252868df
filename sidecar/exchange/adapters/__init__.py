"""One STS dialect per file, chosen per configured issuer by its name, never by what a token says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from sidecar.delegation.decide import Plan
from sidecar.delegation.rfc8693 import TokenResponse
from sidecar.delegation.verify import VerifiedToken
from sidecar.exchange.adapters import rfc8693


class Adapter(Protocol):
    """The functions of a dialect's module. Pure: no call is made here."""

    def build(self, plan: Plan, subject: VerifiedToken, actor_token: str, *, subject_token_type: str) -> bytes:
        """Build the urlencoded body of the request that exchanges ``subject``."""

    def build_own(self, plan: Plan) -> bytes:
        """Build the urlencoded body of a request for the workload's own token."""

    def read(self, status: int, content_type: str | None, body: bytes, *, plan: Plan) -> TokenResponse:
        """Read the answer; its token is still unverified. Raises SidecarError, and quotes nothing."""


ADAPTERS: Final[Mapping[str, Adapter]] = {"rfc8693": rfc8693}
