"""The shape of a platform file: the ceiling that every workload's settings must stay below."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.sections import IssuerSection, Section, UserIssuerSection
from sidecar.config.words import UrlText


class PlatformIssuerSection(IssuerSection):
    """An issuer that workloads may believe, and ask for tokens: ``token_endpoint``, ``{issuer}/token`` if not given.

    ``tls`` says who answers at both URLs.
    """

    token_endpoint: UrlText | None = None


class PlatformFile(Section):
    """What workloads may be told at most. What is not written here, no workload may have."""

    issuers: list[PlatformIssuerSection] = Field([])
    login_issuers: list[UserIssuerSection] = Field([])
    allow_self: bool = False
    pass_token: bool = False
    passthrough: bool = False
    inject: bool = False
    observe_until: bool = False
    refuse_other_listeners: bool = False
    linger_s: float = Field(0.0, ge=0, le=86_400)
