"""Answers of an authorization server: through a browser, where anybody can send one, and its metadata."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlsplit

from delegation_core.authorization_response import MAX_BYTES, code_of
from delegation_core.errors import Denied, Reason
from sidecar.exchange.metadata import parse_metadata
from tests.fuzz.properties import quiet

STATE: Final = "st4te"
ISSUER: Final = "https://login.example"
_REFUSALS: Final = frozenset(
    {Reason.LOGIN_MALFORMED, Reason.LOGIN_STATE_MISMATCH, Reason.LOGIN_ISSUER_MISMATCH, Reason.LOGIN_DENIED}
)


def authorization_response(data: bytes) -> None:
    """A code is returned only with our state, at most our issuer, no error, and no parameter twice for any reader."""
    query = data.decode("latin-1")
    for names_issuer in (False, True):
        try:
            code = code_of(query, state=STATE, issuer=ISSUER, names_issuer=names_issuer)
        except Denied as error:
            assert error.reason in _REFUSALS
            quiet(error)
            continue
        assert len(data) <= MAX_BYTES + 1
        read = parse_qs(query.removeprefix("?"), keep_blank_values=False)
        assert (read["code"], read["state"], read.get("error")) == ([code], [STATE], None)
        assert read.get("iss", [ISSUER]) == [ISSUER]
        assert "iss" in read or not names_issuer


def server_metadata(data: bytes) -> None:
    """Metadata are the issuer's own, and each endpoint leads over TLS, or to this machine, and nowhere hidden."""
    try:
        found = parse_metadata(data, issuer=ISSUER)
    except Denied as error:
        assert error.reason in (Reason.STS_ISSUER, Reason.STS_BAD_RESPONSE)
        quiet(error)
        return
    for url in found.endpoints.values():
        parts = urlsplit(url)
        here = parts.hostname in ("localhost", "::1") or str(parts.hostname).startswith("127.")
        assert parts.scheme == "https" or here
        assert "@" not in parts.netloc
        assert not {"#", " "} & set(url)
