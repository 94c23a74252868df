"""Policy of the token service: the targets, the actors that may act for a subject there, and where chains may start.

One immutable snapshot, replaced whole when the policy file changes. An empty collection allows nobody; "any subject" is
an explicit value, so an omission never means it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from delegation_core.act import MAX_ACT_DEPTH
from delegation_core.errors import ConfigError
from delegation_core.profile_presets import PRESETS
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import TrustedIssuer
from sidecar.sts.contradictions import contradictions
from sidecar.sts.rules import EntryWorkload, ForeignIssuer, LoginIssuer, Rule, SelfDelegation, SelfRule, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class StsPolicy:
    """One snapshot of all inputs of a decision except tokens and time.

    ``issuer`` is our own identifier (RFC 8414 section 2). A workload owns the audiences of its target, and its
    SPIFFE ID in any case.

    Raises:
        ConfigError: every contradiction, not only the first.
    """

    issuer: str
    targets: tuple[Target, ...]
    rules: tuple[Rule, ...]
    self_rules: tuple[SelfRule, ...] = ()
    self_delegations: tuple[SelfDelegation, ...] = ()
    entries: Mapping[SpiffeId, EntryWorkload] = field(default_factory=dict)
    login_issuers: Mapping[str, LoginIssuer] = field(default_factory=dict)
    foreign_issuers: Mapping[str, ForeignIssuer] = field(default_factory=dict)
    token_life_s: int = 300
    max_depth: int = MAX_ACT_DEPTH
    act_iss: str | None = None
    """``iss`` of each new actor, by the actor profile; None: tokens follow RFC 8693 alone."""

    own: TrustedIssuer = field(init=False, repr=False, compare=False)
    """Ourselves, as the issuer of tokens that come back as subject tokens."""
    longest_life_s: int = field(init=False, repr=False, compare=False)
    """How long a token that is issued under this policy may live at most, in seconds."""
    _targets: Mapping[str, Target] = field(init=False, repr=False, compare=False)
    _audiences: Mapping[SpiffeId, frozenset[str]] = field(init=False, repr=False, compare=False)
    _rules: Mapping[tuple[SpiffeId, str], tuple[Rule, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Indexed once, so that an exchange costs the same under ten rules and under ten thousand.
        targets: dict[str, Target] = {}
        audiences: dict[SpiffeId, frozenset[str]] = {}
        rules: dict[tuple[SpiffeId, str], list[Rule]] = {}
        for target in self.targets:
            audiences[target.workload] = audiences.get(target.workload, frozenset((target.workload,))) | target.names
            for name in target.names:
                targets.setdefault(name, target)
        for rule in self.rules:
            rules.setdefault((rule.actor, rule.audience), []).append(rule)
        self._set(_targets=targets, _audiences=audiences, _rules={pair: tuple(found) for pair, found in rules.items()})
        if problems := list(contradictions(self)):
            raise ConfigError(problems)
        first = (entry.longest_first_life_s for entry in self.entries.values())
        own = TrustedIssuer(
            issuer=self.issuer,
            profile=replace(PRESETS["sts"], act_iss=self.act_iss),
            scopes=frozenset().union(*(target.scopes for target in self.targets)),
            actor_trust_domains=frozenset(rule.actor.trust_domain for rule in self.rules)
            | frozenset(rule.actor.trust_domain for rule in self.self_delegations),
        )
        self._set(own=own, longest_life_s=max(self.token_life_s, *first, 0))

    def target_of(self, audience: str) -> Target | None:
        """Return the target that owns this audience; None if there is none."""
        return self._targets.get(audience)

    def recipient_of(self, audience: str) -> SpiffeId:
        """Return the workload that receives tokens for this audience of a rule."""
        return self._targets[audience].workload

    def binds(self, audience: str) -> bool:
        """Tell if tokens for this audience are bound to their client's certificate."""
        target = self._targets.get(audience)
        return target is not None and target.bound

    def audiences_of(self, workload: SpiffeId) -> frozenset[str]:
        """Return the audiences whose tokens this workload may exchange as its own."""
        return self._audiences.get(workload) or frozenset((workload,))

    def foreign_pair(self, subject: str) -> tuple[str, str] | None:
        """Return the pair (issuer, sub) of a foreign issuer's subject, found by its prefix; None for other subjects."""
        for issuer, foreign in self.foreign_issuers.items():
            prefix = foreign.crossing.subject_prefix
            if subject.startswith(prefix):
                return issuer, subject[len(prefix) :]
        return None

    def rules_for(self, actor: SpiffeId, audience: str) -> tuple[Rule, ...]:
        """Return the rules for this actor at this audience, for any subject."""
        return self._rules.get((actor, audience), ())

    def self_scopes(self, workload: SpiffeId, audience: str) -> ScopeSet | None:
        """Return this workload's own scopes at this audience; None if the pair is not listed."""
        matching = [rule.scopes for rule in self.self_rules if rule.workload == workload and rule.audience == audience]
        return frozenset().union(*matching) if matching else None

    def self_delegations_of(self, workload: str, actor: SpiffeId) -> tuple[SelfDelegation, ...]:
        """Return the rules for ``actor`` in chains that ``workload`` started for itself."""
        return tuple(one for one in self.self_delegations if one.workload == workload and one.actor == actor)

    def _set(self, **derived: object) -> None:
        for name, value in derived.items():
            object.__setattr__(self, name, value)
