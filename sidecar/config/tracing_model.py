"""The section of traces: the collector that gets spans, and what it gets."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from sidecar.config.field_types import FileText, Line, Seconds, UrlText
from sidecar.config.sections import Section

_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_NOT_SET: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
)


def _header_name(text: str) -> str:
    if not _HEADER.fullmatch(text) or text in _NOT_SET:
        raise ValueError("is not a header that can be set; write its name in lower case, such as authorization")
    return text


class TracingSection(Section):
    """Spans for an OpenTelemetry collector, by OTLP over HTTP. Needs the extra ``otel``.

    A request's span is made of its record. Calls never wait for the collector: what it does not take is dropped and
    counted in ``sidecar_telemetry_total``.
    """

    endpoint: UrlText = Field(
        description="URL of the collector's OTLP receiver, to which `/v1/traces` is added; https, or http on loopback"
    )
    protocol: Literal["http/protobuf"] = Field(default="http/protobuf", description="the protocol of the receiver")
    ca: FileText | None = Field(
        default=None, description="file of CA certificates for the collector's name; if not set, the public ones"
    )
    headers: dict[Annotated[str, AfterValidator(_header_name)], FileText] = Field(
        default={},
        description="headers that the collector asks for, such as `authorization`: for each, the file of its value",
    )
    ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description=(
            "share of the traces that begin here that is recorded. A trace that a caller began is recorded if the"
            " caller records it"
        ),
    )
    queue: int = Field(default=2048, ge=1, le=65_536, description="the most spans, and the most records, that wait")
    timeout_s: Seconds = Field(default=5.0, le=60, description="timeout of one batch, retries included")
    subject_key: FileText | None = Field(
        default=None,
        description=(
            "file of the key that subjects are hashed with, the same at all sidecars whose spans are compared; if not"
            " set, each process makes one of its own"
        ),
    )
    service_name: Line | None = Field(
        default=None, description="`service.name` of the spans; if not set, the path of the SPIFFE ID"
    )
    records: bool = Field(
        default=False,
        description="true: the collector gets every record too, whole, with the subject's name, as an OTLP log",
    )
