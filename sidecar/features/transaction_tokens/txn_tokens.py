"""Transaction tokens: verified from peers, stored with the request, and sent with its outbound calls.

If the settings enable them, the two journeys call these classes in place of ``to_agent`` and ``to_next_hop``.
Otherwise the field is removed (``headers.py``); from agents it is always removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from delegation_core.bearer import parse_txn_token
from delegation_core.bounded import BoundedCache
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.permit import Permit
from delegation_core.plan import Plan
from delegation_core.txn_token import TxnSource, TxnToken, verify_txn_token
from delegation_core.validity import check_times
from sidecar.exchange.cache import Issued
from sidecar.identity.jwks import IssuerKeys
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import TXN_TOKEN, to_next_hop
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.wire.message import Edits, Request, new_edits

MAX_BYTES: Final = 4 * 1024 * 1024  # cache of verified tokens: a repeated token costs no signature check


class InboundTxnTokens:
    """Verifies the transaction tokens of peers. ``clock`` is wall time in seconds.

    ``edits`` returns the field edits of a permitted request, as ``to_agent`` does.
    """

    def __init__(
        self,
        source: TxnSource,
        *,
        snapshots: Snapshots,
        handles: Handles,
        tasks: Tasks,
        clock: Callable[[], float],
        edits: Callable[..., Edits],
    ) -> None:
        self._source = source
        self._snapshots = snapshots
        self._handles = handles
        self._tasks = tasks
        self._clock = clock
        self._edits = edits
        self._fetch: asyncio.Task[None] | None = None
        self.verified: BoundedCache[str, TxnToken] = BoundedCache(MAX_BYTES)

    def edits(
        self, request: Request, permit: Permit, identity: tuple[bytes, ...], *, entry: Entry, handle: str, **told: Any
    ) -> Edits:
        """Verify a permitted request's transaction token, store it for the request's calls, and return the edits.

        With ``pass_token`` the route passes the token to the agent.

        Raises:
            Denied: TXN_TOKEN_REFUSED; HEADER_MALFORMED, the field is repeated; or as the constructor's ``edits``.
            Unavailable: KEYS_UNAVAILABLE, the token's key is not known yet; or as the constructor's ``edits``.
        """
        made = self._edits(request, permit, identity, entry=entry, handle=handle, **told)
        try:
            shown = request.one(TXN_TOKEN)
            if shown is None:
                return made
            token = self._verify(shown.decode("latin-1"))
            token.check_beside(permit.token)
        except SidecarError:
            entry.decision = "deny"  # although the access token permits the request
            raise
        self._handles.carry(handle, token)
        if entry.txn is None:
            entry.txn = token.txn
        return _add_token(made, token) if permit.route.pass_token else made

    def _verify(self, raw: str) -> TxnToken:
        keys, now = self._snapshots.now().keys, int(self._clock())
        try:
            token = self.verified.find(raw, keys.generation)
            if token is not None:
                check_times(token, now)
                return token
            bearer = parse_txn_token(raw)
            key = keys.find(self._source.issuer, bearer.kid)
            if key is None:
                self._fetch_key(keys, bearer.kid)
                raise Unavailable(Reason.KEYS_UNAVAILABLE, "the key of the transaction token is not known yet")
            token = verify_txn_token(bearer, source=self._source, key=key, now=now)
        except Denied as error:
            raise Denied(Reason.TXN_TOKEN_REFUSED, str(error)) from error
        until = token.expires_at + token.leeway_s
        self.verified.keep(raw, token, cost=token.held_bytes, expires_at=until, epoch=keys.generation)
        return token

    def _fetch_key(self, keys: IssuerKeys, kid: str | None) -> None:
        """Start a fetch of a key for later requests, unless one is running: a fetch brings all keys of the issuer."""
        if self._fetch is None or self._fetch.done():
            self._fetch = self._tasks.start(_fetch(keys, self._source.issuer, kid))


class OutboundTxnTokens:
    """Adds transaction tokens to calls. ``clock`` is wall time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def edits(self, issued: Issued, plan: Plan, entry: Entry, **told: Any) -> Edits:
        """Return the edits of ``to_next_hop``; on a route with ``txn_token``, add the chain's transaction token.

        At the chain's entry this is the issued token; later, the token that came in with the request, if any.

        Raises:
            Denied: TXN_TOKEN_REFUSED, the token has expired, or does not match the access token sent with it.
        """
        made = to_next_hop(issued, plan, entry, **told)
        if not plan.route.txn_token:
            return made
        delegation = plan.delegation
        token = issued.txn_token if delegation is None or delegation.entry else delegation.txn_token
        if token is None:
            return made
        try:
            _check_life(token, self._clock())
            token.check_beside(issued.permit.token)
        except Denied:
            entry.decision = "deny"
            raise
        if entry.txn is None:
            entry.txn = token.txn
        return _add_token(made, token)


def _check_life(token: TxnToken, now: float) -> None:
    """Raise Denied (TXN_TOKEN_REFUSED) if the token has expired; no leeway, as the next hop may have none."""
    if now >= token.expires_at:
        raise Denied(Reason.TXN_TOKEN_REFUSED, "the transaction token of the request has expired")


def _add_token(edits: Edits, token: TxnToken) -> Edits:
    passes, names, values = edits
    return new_edits((passes, (*names, TXN_TOKEN), (*values, token.raw.encode("ascii"))))


async def _fetch(keys: IssuerKeys, issuer: str, kid: str | None) -> None:
    """Fetch a key in the background; a SidecarError is ignored, as the next request tries again."""
    try:
        await keys.wait_for_key(issuer, kid)
    except SidecarError:
        return
