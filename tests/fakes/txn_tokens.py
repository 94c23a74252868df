"""Transaction tokens of a trust domain, and the service that issues them: lawful, unless a test changes one fact."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from delegation_core.spiffe_id import TrustDomain
from delegation_core.txn_token import TxnSource
from tests.fakes.lying_sts import Behaviour, Form, LyingSts, Reply
from tests.fakes.tokens import ISSUER, NOW, TokenMint, changed, encode, from_base64url

TTS: Final = TokenMint("https://tts.acme.example", kid="t1", key=6)
DOMAIN: Final = TrustDomain("acme.example")
SOURCE: Final = TxnSource(trust_domain=DOMAIN, issuer=TTS.issuer, subject_issuer=ISSUER)
TXN_TOKEN: Final = "urn:ietf:params:oauth:token-type:txn_token"


def txn_claims(**changes: object) -> dict[str, object]:
    """Return the claims of a lawful token for alice's transaction, changed."""
    lawful = {
        "aud": str(DOMAIN),
        "iat": NOW - 5,
        "exp": NOW + 120,
        "txn": "txn-1",
        "sub": "alice",
        "scope": "crm.read",
        "req_wl": "spiffe://acme.example/agent/front",
        "tctx": {"action": "read"},
    }
    return changed(lawful, changes)


def txn_token(header: Any = None, mint: Any = TTS, **changes: Any) -> str:
    signed: str = mint.mint(txn_claims(**changes), mint.header(**{"typ": "txntoken+jwt", **(header or {})}))
    return signed


def honest_txn(sts: LyingSts, form: Form) -> Reply:
    return txn_answer()(sts, form)


def txn_answer(
    claims: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    members: dict[str, object] | None = None,
    mint: TokenMint = TTS,
) -> Behaviour:
    """An answer of the service with these changes: ``sub`` and ``txn`` are those of the token that was shown."""

    def answer(sts: LyingSts, form: Form) -> Reply:
        shown: dict[str, Any] = json.loads(from_base64url(form["subject_token"].split(".")[1]))
        now = sts.clock()
        lawful = {"sub": shown["sub"], "txn": shown.get("txn", "txn-new"), "iat": now, "exp": now + 120}
        token = txn_token(header, mint, **{**lawful, "aud": form["audience"], "scope": form["scope"], **(claims or {})})
        told = {"access_token": token, "issued_token_type": TXN_TOKEN, "token_type": "N_A"}
        return Reply(body=encode(changed(told, members or {})))

    return answer


@dataclass
class Tts(LyingSts):
    """The service; also a `Caller` without a network."""

    mint: TokenMint = field(default_factory=lambda: TTS)
    behaviour: Behaviour = field(default_factory=lambda: honest_txn)
