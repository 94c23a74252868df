"""Verified tokens, gathered from every record that mentions them, and the rules by which one follows from another.

A token is named by its issuer and ``jti`` and points back by ``parent_jti``; both are signed, and so is ``txn``, which
an STS mints where a chain starts and copies after that. Unverified claims join nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.audit.findings import Finding, Kind
from sidecar.audit.records import Record

TokenId = tuple[str, str]  # issuer, jti


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token. ``chain`` is current actor first, None for a token that names no actor; ``told_by`` is a record."""

    issuer: str
    jti: str
    subject: str
    chain: tuple[str, ...] | None
    audience: str | None
    scope: frozenset[str]
    scope_cut: bool
    parent_jti: str | None
    txn: str | None
    fp: str | None
    told_by: str

    @property
    def id(self) -> TokenId:
        """Key of the token."""
        return self.issuer, self.jti

    @property
    def depth(self) -> int:
        """Number of actors it names."""
        return len(self.chain or ())


def token_of(record: Record) -> Token | None:
    """Return the token whose claims a record holds, None if it holds no verified ones.

    That is the token issued, where there is one, else the token that came in.
    """
    issued = record.event == "token.exchanged" or (record.direction == "outbound" and record.allowed)
    jti = record.jti_out if issued else record.jti_in
    if record.event == "token.exchange_refused" or not record.verified:
        return None
    if record.subject_iss is None or record.subject is None or jti is None:
        return None
    return Token(
        issuer=record.subject_iss,
        jti=jti,
        subject=record.subject,
        chain=record.chain,
        audience=record.audience,
        scope=record.scope or frozenset(),
        scope_cut=record.scope_cut,
        parent_jti=record.parent_jti,
        txn=record.txn,
        fp=record.fp,
        told_by=record.name,
    )


class Tokens:
    """All tokens in the records."""

    def __init__(self) -> None:
        self._tokens: dict[TokenId, Token] = {}
        self._by_jti: dict[str, list[Token]] = {}
        self._disagreeing: dict[TokenId, tuple[set[str], list[str]]] = {}
        self._chains: dict[TokenId, str] = {}  # cache, emptied by each new token

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens.values())

    def add(self, token: Token) -> None:
        """Note one record's claims about a token. All records must agree."""
        known = self._tokens.get(token.id)
        if known is None:
            self._chains.clear()
            self._tokens[token.id] = token
            self._by_jti.setdefault(token.jti, []).append(token)
        elif differing := _differing(known, token):
            about, records = self._disagreeing.setdefault(token.id, (set(), [known.told_by]))
            about.update(differing)
            records.append(token.told_by)

    def get(self, token_id: TokenId | None) -> Token | None:
        """Return the token with this key."""
        return None if token_id is None else self._tokens.get(token_id)

    def parent_of(self, token: Token) -> Token | None:
        """Return the parent of a token: by its own issuer if that has such a ``jti``, else by any issuer."""
        if token.parent_jti is None:
            return None
        own = self._tokens.get((token.issuer, token.parent_jti))
        return own or next(iter(self._by_jti.get(token.parent_jti, ())), None)

    def chain_of(self, token: Token) -> str:
        """Return the name of its chain: ``txn``, or without one the ``jti`` of the earliest token that leads to it."""
        if token.txn is not None:
            return token.txn
        way = {token.id: token}
        while (name := self._chains.get(token.id, token.txn)) is None:
            parent = self.parent_of(token)
            if parent is None or parent.id in way:
                name = f"jti:{token.jti if token.depth < 2 else token.parent_jti or token.jti}"
                break
            way[parent.id] = token = parent
        # without this, a line of forged tokens would cost the square of its length
        self._chains.update(dict.fromkeys(way, name))
        return name

    def findings(self) -> Iterator[Finding]:
        """Find tokens that contradict each other, or the rules by which one follows from another."""
        for token_id, (about, records) in self._disagreeing.items():
            text = f"token {token_id[1]} is recorded with more than one {', '.join(sorted(about))}"
            yield Finding(Kind.WITNESSES_DISAGREE, text, self._tokens[token_id].txn, tuple(records))
        for token in self:
            parent = self.parent_of(token)
            if parent is not None and (parent.chain is not None or token.depth != 1):
                yield from _link_findings(token, parent)


def _differing(one: Token, other: Token) -> list[str]:
    names = ["subject", "chain", "audience", "scope", "txn", "fp"]
    if one.parent_jti is not None and other.parent_jti is not None:  # the callee of a foreign STS's token has none
        names.append("parent_jti")
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _link_findings(token: Token, parent: Token) -> Iterator[Finding]:
    """Check a token against its parent. A login token is none of these: the STS's policy decides what it may become."""
    records = (parent.told_by, token.told_by)
    if parent.txn is not None and parent.txn != token.txn:
        text = f"token {token.jti} came from {parent.jti}, a token of chain {parent.txn}"
        yield Finding(Kind.SPLICE, text, token.txn, records)
    if (parent.issuer, parent.subject) != (token.issuer, token.subject):
        whose = f"{parent.subject} ({parent.issuer})"
        text = f"token {token.jti} is for {token.subject} ({token.issuer}); it came from one for {whose}"
        yield Finding(Kind.SPLICE, text, token.txn, records)
    if token.chain is None or token.chain[1:] != (parent.chain or ()):
        text = f"token {token.jti} names {_arrows(token.chain)}; the one it came from names {_arrows(parent.chain)}"
        yield Finding(Kind.CHAIN_BROKEN, text, token.txn, records)
    if not (token.scope_cut or parent.scope_cut) and not token.scope <= parent.scope:
        wider = ", ".join(sorted(token.scope - parent.scope))
        text = f"token {token.jti} holds {wider}, which the token it came from does not"
        yield Finding(Kind.SCOPE_WIDENED, text, token.txn, records)


def _arrows(chain: Iterable[str] | None) -> str:
    return " ← ".join(chain or ()) or "nobody"


def issue_findings(record: Record) -> Iterator[Finding]:
    """Check one record of an issue: the new actor is the requester, and nothing is granted beyond the request."""
    asked, granted = record.scope_needed, record.scope or frozenset()
    client = record.workload if record.direction == "outbound" else record.peer
    current = record.chain[0] if record.chain else None
    if current is not None and current.startswith("spiffe://") and client is not None and current != client:
        text = f"token {record.jti_out} was issued to {client} and names {current} as its actor"
        yield Finding(Kind.CHAIN_BROKEN, text, record.txn, (record.name,))
    if asked is not None and not record.scope_cut and not granted <= asked:
        text = f"token {record.jti_out} holds {', '.join(sorted(granted - asked))}, which nobody asked for"
        yield Finding(Kind.SCOPE_WIDENED, text, record.txn, (record.name,))
