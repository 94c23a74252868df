"""All harnesses by name. A harness accepts any bytes and fails by raising: a bug in the product, or here.

``dictionary`` is a file in ``dictionaries/``; ``share`` is its weight in a run's time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.fuzz import (
    of_a2a,
    of_bodies,
    of_entries,
    of_h2_library,
    of_heads,
    of_http2,
    of_identity,
    of_keys,
    of_logins,
    of_orders,
    of_others,
    of_records,
    of_settings,
    of_status,
    of_streams,
    of_sts,
    of_tokens,
    of_upstreams,
    of_verified,
)


@dataclass(frozen=True, slots=True)
class Harness:
    """One parser of foreign bytes and its properties."""

    check: Callable[[bytes], None]
    dictionary: str
    max_len: int = 2048
    share: int = 1

    @property
    def name(self) -> str:
        """The name of its corpus, also on the command line."""
        return self.check.__name__


_ALL: Final = (
    Harness(of_heads.request_head, "http"),
    Harness(of_heads.response_head, "http"),
    Harness(of_heads.authority, "http", max_len=300),
    Harness(of_heads.target, "target", max_len=300),
    Harness(of_heads.trace, "http"),
    Harness(of_heads.own_headers, "http"),
    Harness(of_bodies.chunked_body, "http"),
    Harness(of_bodies.answer, "http"),
    Harness(of_tokens.authorization, "token"),
    Harness(of_tokens.compact_token, "token"),
    Harness(of_tokens.token_documents, "token"),
    Harness(of_tokens.act_chain, "token"),
    Harness(of_tokens.json_object, "token"),
    Harness(of_tokens.scope, "token", max_len=300),
    Harness(of_tokens.spiffe_id, "token", max_len=2200),
    Harness(of_verified.peer_token, "token"),
    Harness(of_verified.issued_token, "token"),
    Harness(of_verified.login_token, "token"),
    Harness(of_keys.key_set, "token", max_len=4096),
    Harness(of_keys.cache_control, "http", max_len=300),
    Harness(of_sts.sts_answer, "token"),
    Harness(of_sts.token_request, "form"),
    Harness(of_logins.authorization_response, "form"),
    Harness(of_logins.server_metadata, "token"),
    Harness(of_a2a.agent_card, "record"),
    Harness(of_a2a.task_answer, "record"),
    Harness(of_a2a.grpc_call, "identity", max_len=4096),
    Harness(of_a2a.grpc_card, "identity", max_len=4096),
    Harness(of_a2a.grpc_list, "identity", max_len=4096),
    Harness(of_a2a.push_url, "target", max_len=300),
    Harness(of_identity.x509_update, "identity", max_len=8192),
    Harness(of_identity.jwt_bundles, "identity", max_len=4096),
    Harness(of_identity.jwt_svid_message, "identity"),
    Harness(of_identity.der, "identity"),
    Harness(of_identity.certificate, "identity"),
    Harness(of_identity.bundle, "identity", max_len=4096),
    Harness(of_identity.pem, "identity", max_len=8192),
    Harness(of_settings.document, "settings"),
    Harness(of_settings.sidecar_file, "settings", max_len=8192),
    Harness(of_settings.sts_file, "settings", max_len=8192),
    Harness(of_settings.platform_file, "settings", max_len=4096),
    Harness(of_settings.address, "http", max_len=300),
    Harness(of_records.record_line, "record", max_len=4096),
    Harness(of_records.log_line, "record", max_len=4096),
    Harness(of_records.log_document, "record", max_len=4096),
    Harness(of_records.record_text, "record", max_len=4096),
    Harness(of_entries.registration_entries, "settings", max_len=4096),
    Harness(of_status.status_answer, "record", max_len=4096),
    Harness(of_http2.http2_head, "http", share=2),
    Harness(of_http2.http2_connection, "http", max_len=4096, share=4),
    Harness(of_h2_library.http2_beside_library, "http", max_len=1024, share=2),
    Harness(of_h2_library.http2_answers_beside_library, "http", max_len=1024, share=2),
    Harness(of_others.requests_beside_others, "http", share=3),
    Harness(of_others.answers_beside_others, "http", share=2),
    Harness(of_streams.request_stream, "http", max_len=4096, share=10),
    Harness(of_orders.event_orders, "http", max_len=64, share=5),
    Harness(of_upstreams.answer_stream, "http", share=4),
)
HARNESSES: Final = {harness.name: harness for harness in _ALL}
