"""Checkpoints of a record stream: the token service signs the head of a run's hash chain.

The signature is that of a JWS (RFC 7515) with the header ``{"alg", "kid", "typ"}`` and the payload ``{"hash", "iat",
"iss", "run", "seq", "sub"}``, both with sorted keys and no white space. A record holds the values as plain text, since
a whole JWS would look like a token. Any reader can rebuild the JWS from the record and verify it with the token
service's published keys.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.form import FormError, media_type, parse_form
from delegation_core.jws import ALGORITHMS, MAX_KID_CHARACTERS
from delegation_core.keyset import VerificationKey
from delegation_core.signature import verify_signature

TYP: Final = "record-checkpoint+jws"  # no verifier of access tokens accepts it
MAX_FORM_BYTES: Final = 1024

_MAX_SEQ: Final = 2**53 - 1
_RUN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SEQ: Final = re.compile(r"[1-9][0-9]{0,15}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TEXT: Final = re.compile(
    r"iss=(?P<iss>\S{1,2048}) iat=(?P<iat>[1-9][0-9]{0,15}) seq=(?P<seq>[1-9][0-9]{0,15}) hash=(?P<hash>[0-9a-f]{64})"
    rf" alg=(?P<alg>[A-Za-z0-9]{{1,16}}) kid=(?P<kid>[A-Za-z0-9_-]{{1,{MAX_KID_CHARACTERS}}})"
    r" sig=(?P<sig>[A-Za-z0-9_-]{1,1024})"
)


class CheckpointError(ValueError):
    """The text is not a checkpoint. The message never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Head of a run's hash chain: number of the newest line, and its SHA-256 in hex, computed without the newline."""

    run: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A head signed by ``issuer`` for ``workload`` at ``at`` (seconds since the epoch)."""

    issuer: str
    workload: str
    head: Head
    at: int
    alg: str
    kid: str
    signature: bytes = field(default=b"", repr=False)

    @property
    def signing_input(self) -> bytes:
        """The input of the signature (RFC 7515 section 5.1)."""
        head = self.head
        header: dict[str, object] = {"alg": self.alg, "kid": self.kid, "typ": TYP}
        payload: dict[str, object] = {"iss": self.issuer, "sub": self.workload, "iat": self.at}
        payload |= {"run": head.run, "seq": head.seq, "hash": head.hash}
        return _part(_json(header)) + b"." + _part(_json(payload))

    def text(self) -> str:
        """Return the text for the record ``records.countersigned``, without workload and run: the record has both."""
        signature = _part(self.signature).decode("ascii")
        return (
            f"iss={self.issuer} iat={self.at} seq={self.head.seq} hash={self.head.hash}"
            f" alg={self.alg} kid={self.kid} sig={signature}"
        )

    def verify(self, key: VerificationKey) -> None:
        """Verify the signature with ``key``.

        Raises:
            Denied: ALG_NOT_ALLOWED or BAD_SIGNATURE.
        """
        verify_signature(self, key, ALGORITHMS)


def countersign(
    head: Head, *, issuer: str, workload: str, at: int, alg: str, kid: str, sign: Callable[[bytes], bytes]
) -> Checkpoint:
    """Sign a head. ``sign`` maps the signing input to a JWS signature (RFC 7518 section 3)."""
    unsigned = Checkpoint(issuer=issuer, workload=workload, head=head, at=at, alg=alg, kid=kid)
    signature = sign(unsigned.signing_input)
    return Checkpoint(issuer=issuer, workload=workload, head=head, at=at, alg=alg, kid=kid, signature=signature)


def parse_checkpoint(text: str, *, workload: str, run: str) -> Checkpoint:
    """Parse the text of a ``records.countersigned`` record of ``workload`` and ``run``. The signature is not verified.

    Raises:
        CheckpointError: the text is malformed.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise CheckpointError("a checkpoint must have the form iss= iat= seq= hash= alg= kid= sig=")
    signature = match["sig"]
    decoded = urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) if len(signature) % 4 != 1 else b""
    if _part(decoded).decode("ascii") != signature:
        raise CheckpointError("sig is not canonical base64url")
    return Checkpoint(
        issuer=match["iss"],
        workload=workload,
        head=Head(run=run, seq=int(match["seq"]), hash=match["hash"]),
        at=int(match["iat"]),
        alg=match["alg"],
        kid=match["kid"],
        signature=decoded,
    )


def head_form(head: Head) -> bytes:
    """Return the form body of a countersignature request."""
    return f"run={head.run}&seq={head.seq}&hash={head.hash}".encode("ascii")


def parse_head(body: bytes, content_type: str | None) -> Head:
    """Parse the form body of a countersignature request.

    Raises:
        Denied: EXCHANGE_MALFORMED unless the body is a form with exactly run, seq and hash, each well-formed.
    """
    if media_type(content_type) != "application/x-www-form-urlencoded":
        raise Denied(Reason.EXCHANGE_MALFORMED, "the content type is not application/x-www-form-urlencoded")
    try:
        form = parse_form(body, repeatable=(), max_bytes=MAX_FORM_BYTES)
    except FormError as error:
        raise Denied(Reason.EXCHANGE_MALFORMED, str(error)) from error
    values = {name: value for name, (value,) in form.items()}
    if values.keys() != {"run", "seq", "hash"}:
        raise Denied(Reason.EXCHANGE_MALFORMED, "the parameters are not exactly run, seq and hash")
    patterns = {"run": _RUN, "seq": _SEQ, "hash": _HASH}
    for name, pattern in patterns.items():
        if not pattern.fullmatch(values[name]):
            raise Denied(Reason.EXCHANGE_MALFORMED, f"{name} is malformed")
    if int(values["seq"]) > _MAX_SEQ:
        raise Denied(Reason.EXCHANGE_MALFORMED, "seq is too large")
    return Head(run=values["run"], seq=int(values["seq"]), hash=values["hash"])


def _json(members: dict[str, object]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _part(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
