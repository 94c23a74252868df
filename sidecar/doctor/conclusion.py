"""The conclusion from the verdict table: reasons against delegation, cautions, and open questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.doctor.cells import Cell, Value

_OPEN: Final = (Value.CANNOT_SEE, Value.NOT_TESTED)

# Reasons not to use a server for delegation, by cell and value.
_AGAINST: Final[Mapping[tuple[str, Value], str]] = {
    ("verifies-subject", Value.YES): "it exchanges subject tokens that nobody issued",
    ("accepts-actor", Value.REFUSED): "it refuses actor tokens, so its tokens name nobody who acts for the subject",
    ("garbage-actor", Value.YES): "it takes garbage for an actor token",
    ("forged-actor", Value.YES): "it does not verify actor tokens: anybody can be named as the actor",
    ("ignores-actor", Value.YES): "it ignores the actor token without an error, and issues an impersonation token",
    ("emits-act", Value.NO): "its tokens do not name the actor",
    ("emits-act", Value.CANNOT_SEE): "its tokens cannot be read, so nobody can verify whom they name as actor",
    ("nests-act", Value.NO): "the second hop loses the first actor",
    ("nests-act", Value.REFUSED): "it refuses the second hop",
    ("inherited-act", Value.NO): "it rewrites the actors of earlier hops",
    ("third-hop", Value.NO): "the third hop loses or rewrites an earlier actor",
    ("chain-without-actor", Value.NO): "without an actor token it drops the chain: any client can launder a token so",
    ("binds-actor", Value.NO): "a client can present another's actor token: act does not prove who asked",
    ("delegated-actor", Value.YES): "it takes a delegated token as actor token, and names the wrong party",
    ("keeps-sub", Value.NO): "an exchange can change the subject",
    (
        "audience",
        Value.NO,
    ): "its tokens are not for the audience asked for: a sidecar refuses them (sts_audience_mismatch)",
    (
        "caps-life",
        Value.NO,
    ): "its tokens outlive those that they were exchanged for: a sidecar refuses them (sts_lifetime)",
    ("wrong-secret", Value.YES): "it does not check the credential of a client",
    ("no-secret", Value.YES): "it does not ask for the credential of a client",
}
# Weaknesses to live with, and how.
_CAUTIONS: Final[Mapping[tuple[str, Value], str]] = {
    (
        "widens-scope",
        Value.YES,
    ): "scope can widen: register each client with the scopes of its agent alone, and no more",
    (
        "scope-absent",
        Value.NO,
    ): "without scope it gives others than the subject's: always send scope, as a sidecar does",
    ("narrows-scope", Value.NO): "it does not narrow: every token has all scopes of the subject's",
    ("unknown-audience", Value.YES): "it does not know its audiences: a mistyped one is no error",
    ("requester-in-audience", Value.NO): "any client exchanges any token: one stolen from X is of use to Y",
    ("checks-may-act", Value.NO): "it does not enforce may_act: do not rely on it",
    ("checks-may-act", Value.REFUSED): "it refuses even the actor that may_act names: its may_act is of no use",
    ("user-as-actor", Value.YES): "it takes a user's token as actor token: act may name a user",
    ("half-pairs", Value.NO): "half of an actor pair passes: a mistake in a client is no error",
    ("refuses-duplicates", Value.NO): "a repeated subject_token passes: two parsers may read two requests",
    ("refuses-repeated-scope", Value.NO): "a repeated scope passes: two parsers may read two requests",
    ("sender-bound", Value.NO): "it frees sender-bound tokens: DPoP protects nothing once a token is exchanged",
    ("third-hop", Value.REFUSED): "it refuses a third hop, or one back to an earlier actor",
    ("foreign-actor", Value.REFUSED): "it refuses this foreign JWT as actor token; a sidecar sends its JWT-SVID",
    ("ends-with-subject", Value.NO): "revoking a token does not end those exchanged for it: keep their life short",
}
# Without these, nothing is concluded in favour of a server.
_NEEDED: Final[Mapping[str, frozenset[Value]]] = {
    "verifies-subject": frozenset({Value.REFUSED}),
    "accepts-actor": frozenset({Value.YES, Value.NO}),  # NO does no harm where act names the client that asks
    "garbage-actor": frozenset({Value.REFUSED}),
    "forged-actor": frozenset({Value.REFUSED}),
    "emits-act": frozenset({Value.YES}),
    "nests-act": frozenset({Value.YES}),
    "inherited-act": frozenset({Value.YES}),
    "chain-without-actor": frozenset({Value.YES, Value.REFUSED}),
    "binds-actor": frozenset({Value.YES}),
    "keeps-sub": frozenset({Value.YES}),
    "audience": frozenset({Value.YES}),
    "caps-life": frozenset({Value.YES}),
    "wrong-secret": frozenset({Value.REFUSED}),
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """``against``: reasons against delegation; ``cautions``: tolerable weaknesses; ``open``: unanswered required
    questions.
    """

    against: tuple[str, ...]
    cautions: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """True if there are neither reasons against delegation nor open questions."""
        return not self.against and not self.open


def conclude(cells: Sequence[Cell]) -> Conclusion:
    """Weigh the cells."""
    return Conclusion(
        against=tuple(_AGAINST[key] for cell in cells if (key := (cell.id, cell.value)) in _AGAINST and _counts(cell)),
        cautions=tuple(_CAUTIONS[key] for cell in cells if (key := (cell.id, cell.value)) in _CAUTIONS),
        open=tuple(
            cell.question
            for cell in cells
            if cell.id in _NEEDED and cell.value not in _NEEDED[cell.id] and (cell.id, cell.value) not in _AGAINST
        ),
    )


def _counts(cell: Cell) -> bool:
    """Return True if the cell counts against the server: it is marked as bad, or has no answer."""
    return cell.bad or cell.value in _OPEN
