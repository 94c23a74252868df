"""Two authorization servers behind one door: the first issues JWT grants, the second takes them. Each lies if asked to.

The second one's lies are those of `lies.py`: they see the exchange at the first as if it had been theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.fakes.lying_sts import ACCESS_TOKEN, Behaviour, Form, LyingSts, Reply, honest
from tests.fakes.tokens import TokenMint, changed, encode, from_base64url

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ISSUED: Final = f'"issued_token_type":"{ACCESS_TOKEN}",'.encode()  # a member of exchanges alone

First = Callable[["ChainedSts", Form], Reply]


@dataclass
class ChainedSts(LyingSts):
    """``granting`` signs the grants, of header ``typ`` and type ``grant_type``; ``about`` are more claims of theirs.

    ``lawful`` are claims of the issued token that differ from those of a plain exchange.
    """

    granting: TokenMint = field(default_factory=TokenMint)
    typ: str = "JWT"
    grant_type: str = ""
    about: dict[str, object] = field(default_factory=dict)
    lawful: dict[str, object] = field(default_factory=dict)
    first: First = field(default_factory=lambda: honest_grant)
    second: Behaviour = field(default_factory=lambda: honest)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._granted: dict[str, Form] = {}  # the exchange that each grant came of
        self.behaviour = lambda _sts, form: self._answer(form)

    @property
    def presented(self) -> list[Form]:
        """The requests at the second server."""
        return [form for form in self.forms if form["grant_type"] != EXCHANGE]

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        return super().claims(form, **{**self.lawful, **changes})

    def grant_claims(self, form: Form, **changes: object) -> dict[str, object]:
        """Return the claims of an honest grant, changed."""
        subject = json.loads(from_base64url(form["subject_token"].split(".")[1]))
        lawful = {
            "iss": self.granting.issuer,
            "sub": subject["sub"],
            "aud": form.get("audience") or form["resource"],
            "jti": f"grant-{len(self.forms)}",
            "iat": self.clock(),
            "exp": self.clock() + 60,
            **self.about,
        }
        return changed(lawful, changes)

    def grant_members(self, grant: str, **changes: object) -> dict[str, object]:
        """Return the members of the first server's honest answer, changed."""
        lawful = {
            "access_token": grant, "issued_token_type": self.grant_type, "token_type": "N_A", "expires_in": 60,
        }  # fmt: skip
        return changed(lawful, changes)

    def _answer(self, form: Form) -> Reply:
        if form["grant_type"] == EXCHANGE:
            reply = self.first(self, form)
            with suppress(ValueError, KeyError, TypeError):  # a lie in place of a grant
                self._granted[json.loads(reply.body)["access_token"]] = form
            return reply
        asked = self._granted[form["assertion"]]
        target = form.get("resource") or asked["resource"]
        reply = self.second(self, {**asked, "audience": target, "scope": asked.get("scope") or form["scope"]})
        return Reply(reply.status, reply.headers, reply.body.replace(_ISSUED, b""))


def honest_grant(sts: ChainedSts, form: Form) -> Reply:
    return granted()(sts, form)


def granted(
    claims: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    members: dict[str, object] | None = None,
) -> First:
    """A grant with these changes."""

    def answer(sts: ChainedSts, form: Form) -> Reply:
        made = sts.granting.mint(
            sts.grant_claims(form, **(claims or {})), sts.granting.header(**{"typ": sts.typ, **(header or {})})
        )
        return Reply(body=encode(sts.grant_members(made, **(members or {}))))

    return answer


def in_place(make: Callable[[ChainedSts, Form], str]) -> First:
    """Another value in place of the grant."""
    return lambda sts, form: Reply(body=encode(sts.grant_members(make(sts, form))))
