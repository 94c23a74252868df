"""The revocations of one replica of the token service: its book of orders, kept in a file, and the list it signs.

An order counts here once it is on the disk. A replica that could not read its file, or has peers and has heard of none
since its start, is not ready and gives no list: a list that lacks an order would be worse than none.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from sidecar.delegation.claims import is_name
from sidecar.delegation.revocation import InForce, Kind, Revocations
from sidecar.delegation.revocation_list import claims_of
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.strict_json import parse_object
from sidecar.delegation.verify import VerifiedToken
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.observe.record_text import masked
from sidecar.sts.keys import KeyRing
from sidecar.sts.orders import Action, Book, Order, parse_book, verify_order
from sidecar.sts.policy import StsPolicy
from sidecar.sts.records import EventLog

MAX_BOOK_BYTES: Final = 64 * 1024 * 1024
_SIGNED_FOR_S: Final = 30  # a list is signed again after this


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationSettings:
    """The ``operators`` with the kinds that each may revoke, the ``file`` of the orders (None: memory only, for
    development), and the URLs of all ``replicas``, whose names stand for all their addresses.
    """

    operators: Mapping[SpiffeId, frozenset[Kind]] = field(default_factory=dict)
    file: Path | None = None
    replicas: tuple[str, ...] = ()


class Register:
    """The orders of one replica. ``loaded`` is set by ``load``, ``heard`` once a peer has answered."""

    def __init__(self, settings: RevocationSettings, log: EventLog, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.heard = not settings.replicas
        self.trouble: str | None = "the file of orders has not been read yet"
        self._log = log
        self._clock = clock
        self._book = Book()
        self._view: Revocations | None = None
        self._view_of: StsPolicy | None = None
        self._view_ends_at = 0
        self._signed: tuple[str, int, bytes] | None = None  # its key's ID and number, its time, the list

    @property
    def book(self) -> Book:
        """All orders."""
        return self._book

    def lacking(self) -> str | None:
        """Return the reason why this replica cannot tell what is revoked; None if it can."""
        return self.trouble or (None if self.heard else "no other replica has answered since the start")

    def load(self) -> None:
        """Read the file. Without one this replica begins with no orders; an unreadable one is ``trouble``."""
        file = self.settings.file
        try:
            if file is not None and file.exists():
                self._book = parse_book(parse_object(file.read_bytes(), max_bytes=MAX_BOOK_BYTES))
        except (OSError, ValueError) as error:
            self.trouble = f"{file}: {error.strerror if isinstance(error, OSError) else error}"
            return
        self.trouble = None
        self._view = None

    def accept(self, raw: str, *, operator: SpiffeId, certificate: bytes, audience: str) -> Order:
        """Take an order of a listed operator, who proved ``certificate`` on this connection.

        Raises:
            Denied: ORDER_REFUSED.
            Unavailable: AUDIT_UNAVAILABLE or NOT_READY: it could not be recorded or kept.
        """
        if operator not in self.settings.operators:
            raise Denied(Reason.ORDER_REFUSED, "the client is not a listed operator")
        now = self._now()
        order = verify_order(
            raw, operator=operator, certificate=certificate, audience=audience, book=self._book, now=now
        )
        if order.kind not in self.settings.operators[operator]:
            raise Denied(Reason.ORDER_REFUSED, f"this operator may not revoke this kind: {order.kind}")
        self.add(order)
        return order

    def add(self, order: Order) -> None:
        """Keep an order and record it. Raises as ``accept``."""
        if not self._log.healthy:
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "the order could not be recorded")
        if self.trouble is not None:
            raise Unavailable(Reason.NOT_READY, self.trouble)
        if order.id in self._book.orders:
            return
        self._replace(self._book.with_order(order, now=self._now()))
        self._log.event(
            "revocation.ordered",
            **masked({"op": order.action, "peer": order.operator, "revocation": order.text(), "detail": order.reason}),
        )
        if order.action is Action.REVOKE and order.kind is Kind.SUBJECT and order.alone:
            self._log.metrics.revoked_alone += 1

    def merge(self, other: Book) -> None:
        """Take the orders of another replica. Raises Unavailable NOT_READY, they could not be kept."""
        merged = self._book.merged(other, now=self._now())
        if merged is not self._book:
            self._replace(merged)

    def revocations(self, policy: StsPolicy) -> Revocations:
        """Return what is in force now.

        Raises:
            Unavailable: NOT_READY, this replica may lack orders.
        """
        if (lacking := self.lacking()) is not None:
            raise Unavailable(Reason.NOT_READY, lacking)
        now = self._now()
        if self._view is None or now >= self._view_ends_at or self._view_of is not policy:
            self._view_of = policy
            self._view = _with_crossed(self._book.revocations(now, ttl_s=policy.token_life_s), policy)
            ends = [one.expires_at for one in self._view.in_force.values()]
            self._view_ends_at = min(ends, default=now + _SIGNED_FOR_S)
        return self._view

    def refuse(self, token: VerifiedToken, client: SpiffeId, policy: StsPolicy) -> None:
        """Refuse the exchange of a token that is stopped, for a client that is stopped, or of a stopped subject.

        Raises:
            Denied: REVOKED.
            Unavailable: NOT_READY.
        """
        stopped = InForce(lists={policy.issuer: self.revocations(policy)}, own=frozenset((policy.issuer,)))
        stopped.check(token, client)
        login, foreign = policy.login_issuers.get(token.issuer), policy.foreign_issuers.get(token.issuer)
        if login is not None:
            stopped.check_subject(policy.issuer, login.subject_prefix + token.subject)
        if foreign is not None:
            stopped.check_subject(policy.issuer, foreign.crossing.subject(token.subject))

    def refuse_client(self, client: SpiffeId, policy: StsPolicy) -> None:
        """Refuse a client that is stopped. Raises as ``refuse``."""
        if client in self.revocations(policy).names(Kind.ACTOR):
            raise Denied(Reason.REVOKED, f"by a revocation of this {Kind.ACTOR}")

    def signed_list(self, policy: StsPolicy, ring: KeyRing) -> tuple[str, bytes]:
        """Return an entity tag and the signed list. The tag changes only with what the list says.

        Raises:
            Unavailable: NOT_READY.
        """
        found, now, key = self.revocations(policy), self._now(), ring.active
        claims = claims_of(found, policy.issuer)
        said = orjson.dumps([claims["seq"], claims["revoked"], claims["lifted"], claims["ttl"]])
        tag = f'"{hashlib.sha256(said).hexdigest()[:32]}"'
        name = tag + key.kid
        if self._signed is None or self._signed[0] != name or now - self._signed[1] >= _SIGNED_FOR_S:
            self._signed = name, now, key.sign_revocations(found.as_of(now), issuer=policy.issuer)
        return tag, self._signed[2]

    def count(self) -> Mapping[str, int]:
        """Count the revocations in force by kind, for the metric."""
        view = self._view
        return {kind: 0 if view is None else len(view.names(kind)) for kind in Kind}

    def _replace(self, book: Book) -> None:
        file = self.settings.file
        if file is not None:
            try:
                write_atomically(file, orjson.dumps(book.rows()))
            except OSError as error:
                raise Unavailable(Reason.NOT_READY, f"the orders cannot be kept: {error.strerror}") from error
        self._book = book
        self._view = None

    def _now(self) -> int:
        return int(self._clock())


def _with_crossed(view: Revocations, policy: StsPolicy) -> Revocations:
    """Stop each foreign subject also by the name that it has once it has crossed: its chains go on under that one."""
    crossed = {}
    for one in view.in_force.values():
        foreign = policy.foreign_issuers.get(one.issuer or "") if one.kind is Kind.SUBJECT else None
        name = None if foreign is None else foreign.crossing.subject(one.value)
        if is_name(name):
            made = replace(one, id=_crossed_id(one.id), issuer=policy.issuer, value=name)
            crossed[made.id] = made
    if not policy.foreign_issuers:
        return view
    lifted = {_crossed_id(of): end for of, end in view.lifted.items()}
    return replace(view, in_force={**view.in_force, **crossed}, lifted={**view.lifted, **lifted})


def _crossed_id(of: str) -> str:
    return f"crossed:{hashlib.sha256(of.encode()).hexdigest()}"  # no longer than a name, however long that of the order


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file as a whole; it survives a loss of power. Raises OSError."""
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
