"""Checks single entries against the rules, and writes a fix for each weakness."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from delegation_audit.rules import Confidence, Rule, Severity, Weakness, fingerprint_of
from delegation_audit.selectors import fixes
from delegation_audit.selectors.agents import Agents, is_of_sidecar
from delegation_audit.selectors.entries import Entry, Origin, selector_of, trust_domain_of
from delegation_audit.selectors.kinds import (
    CHOSEN_BY_AUTHOR,
    GROUPS,
    IMAGES,
    KNOWN,
    OF_NAMESPACE,
    OF_NOTHING,
    digest_of,
    is_interpreter,
    is_signed,
    repository_of,
)
from delegation_audit.selectors.rulebook import MAX_JWT_TTL_S, MAX_X509_TTL_S, RULE
from delegation_core.spiffe_id import SpiffeIdError, TrustDomain

_CHOSEN_IN_DOCKER: Final = frozenset({"label", "env"})
_PIECE: Final = re.compile(r"{{.*?}}")
MAX_SHOWN: Final = 16_384  # characters of a fix, and of an entry's selectors: the author of an entry may write many


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Facts from the operator: agents, the trust domain, partners, and the time (Unix)."""

    agents: Agents
    now: int
    trust_domain: str | None = None
    partners: frozenset[str] | None = None  # None if unknown


Weaknesses = Iterator[Weakness]


def check_entry(entry: Entry, setting: Setting) -> Weaknesses:
    """Yield the weaknesses of one entry; of a node alias, which attests no workload, only those of trust domains."""
    yield from _trust_domain(entry, setting)
    yield from _federation(entry, setting)
    if entry.is_node:
        return
    for check in _CHECKS:
        yield from check(entry)
    if entry.expires_at and entry.expires_at <= setting.now:
        yield _make_finding("expired-entry", entry, "expired", fix=fixes.deletion(entry))
    is_agent = setting.agents.includes(entry.spiffe_id)
    yield from _names(entry, is_agent=is_agent)
    if is_agent:
        yield from _agent(entry)


def _make_finding(rule: str, entry: Entry, text: str, *, fix: str = "", severity: Severity | None = None) -> Weakness:
    return report(RULE[rule], entry, text, fix=fix, severity=severity)


def report(
    rule: Rule,
    entry: Entry,
    text: str,
    *,
    fix: str = "",
    severity: Severity | None = None,
    confidence: Confidence = Confidence.HIGH,
) -> Weakness:
    """Return the weakness of an entry. ``fix`` is appended to the rule's own, unless it exceeds MAX_SHOWN characters.

    Entries may have neither an ID nor a line of their own, so the fingerprint hashes the identity and the selectors.
    """
    selectors = " ".join(sorted(map(str, entry.selectors)))
    return rule.report(
        entry.place,
        f"{entry.spiffe_id}: {text}",
        severity=severity,
        confidence=confidence,
        fix=f"{rule.fix}\n{fix}" if fix and len(fix) <= MAX_SHOWN else rule.fix,
        fingerprint=fingerprint_of(rule.id, entry.place.file, entry.name, entry.spiffe_id, selectors),
        facts={"spiffe_id": entry.spiffe_id, "selectors": selectors[:MAX_SHOWN]},
    )


def _few(items: Iterable[object]) -> str:
    """List at most three items for a sentence, and the number of the others."""
    words = sorted(map(str, items))
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _selectors(entry: Entry) -> Weaknesses:
    """Yield a weakness if the entry requires too little: nothing, a namespace, names that an author chooses, a group.

    Templates have rules of their own for this.
    """
    if entry.template is not None:
        return
    if not entry.selectors:
        yield _make_finding("no-selectors", entry, "no selector is required", fix=fixes.deletion(entry))
        return
    kinds = {(one.type, one.kind) for one in entry.selectors}
    of_k8s = {kind for type_, kind in kinds if type_ == "k8s"}
    types = {type_ for type_, _ in kinds}
    if types == {"k8s"} and of_k8s <= OF_NAMESPACE | OF_NOTHING:
        asked = _few(entry.selectors)
        fix = fixes.set_selectors(entry, add=fixes.OF_POD)
        yield _make_finding("namespace-only", entry, f"only {asked} is required", fix=fix)
    elif types == {"k8s"} and of_k8s <= OF_NAMESPACE | OF_NOTHING | CHOSEN_BY_AUTHOR:
        chosen = _few(one for one in entry.selectors if one.kind in CHOSEN_BY_AUTHOR)
        fix = fixes.set_selectors(entry, add=(fixes.NAMESPACE, fixes.ACCOUNT, fixes.IMAGE))
        yield _make_finding("label-only", entry, f"the author of a pod chooses {chosen}", fix=fix)
    elif types == {"docker"} and {kind for _, kind in kinds} <= _CHOSEN_IN_DOCKER:
        fix = fixes.set_selectors(entry, add=(fixes.DOCKER_IMAGE,))
        yield _make_finding("label-only", entry, "whoever runs a container chooses all required values", fix=fix)
    elif types == {"unix"} and {kind for _, kind in kinds} <= GROUPS:
        fix = fixes.set_selectors(entry, add=(fixes.USER,))
        yield _make_finding("group-only", entry, "only a group is required", fix=fix)


def _account(entry: Entry) -> Weaknesses:
    accounts = entry.select("k8s", "sa")
    if accounts and not entry.select("k8s", "ns") and entry.template is None:
        fix = fixes.set_selectors(entry, add=(fixes.NAMESPACE,))
        text = f"{accounts[0]} is accepted from any namespace"
        yield _make_finding("service-account-without-namespace", entry, text, fix=fix)
    if any(one.value == "default" for one in accounts):
        fix = fixes.set_selectors(entry, remove=accounts, add=(fixes.ACCOUNT,))
        text = "each pod that names no ServiceAccount runs as default"
        yield _make_finding("shared-service-account", entry, text, fix=fix)


def _images(entry: Entry) -> Weaknesses:
    images = [one for one in entry.selectors if (one.type, one.kind) in IMAGES and not one.value.startswith("{{")]
    pinned = {(one.kind, repository_of(one.value)) for one in images if digest_of(one.value)}
    signed = is_signed(entry.selectors)  # a signature identifies the image of the container itself
    tagged = [
        one
        for one in sorted(images)
        if not digest_of(one.value)
        and (one.kind, repository_of(one.value)) not in pinned
        and not (signed and one.kind in ("container-image", "image_id"))
    ]
    if tagged:
        digests = {selector_of(f"{one.type}:{one.kind}:{repository_of(one.value)}@sha256:DIGEST") for one in tagged}
        fix = fixes.set_fields(entry, selectors=(entry.selectors - set(tagged)) | digests)
        more = f", and {len(tagged) - 1} more" if len(tagged) > 1 else ""
        yield _make_finding("image-tag", entry, f"{tagged[0]} is not a digest{more}", fix=fix)


def _user(entry: Entry) -> Weaknesses:
    roots = [one for one in entry.select("unix", "uid", "user") if one.value.lstrip("0") in ("", "root")]
    if roots:
        fix = fixes.set_selectors(entry, remove=roots, add=(fixes.USER,))
        yield _make_finding("root-user", entry, f"{roots[0]} matches every process of root", fix=fix)
    paths = [one for one in entry.select("unix", "path") if is_interpreter(one.value)]
    if paths:
        useless = [*paths, *entry.select("unix", "sha256")]
        fix = fixes.set_selectors(entry, remove=useless, add=(fixes.USER,))
        yield _make_finding("interpreter-path", entry, f"{paths[0]} runs other programs", fix=fix)


def _lifetimes(entry: Entry) -> Weaknesses:
    if entry.x509_svid_ttl_s > MAX_X509_TTL_S and not entry.downstream:
        fix = fixes.set_fields(entry, x509_svid_ttl_s=MAX_X509_TTL_S)
        day = entry.x509_svid_ttl_s > 24 * 3600
        text = f"an X.509-SVID lives {entry.x509_svid_ttl_s} s"
        yield _make_finding("long-x509-ttl", entry, text, fix=fix, severity=Severity.HIGH if day else None)
    if entry.jwt_svid_ttl_s > MAX_JWT_TTL_S:
        fix = fixes.set_fields(entry, jwt_svid_ttl_s=300)
        day = entry.jwt_svid_ttl_s > 24 * 3600
        text = f"a JWT-SVID lives {entry.jwt_svid_ttl_s} s"
        yield _make_finding("long-jwt-ttl", entry, text, fix=fix, severity=Severity.HIGH if day else None)


def _store(entry: Entry) -> Weaknesses:
    if entry.store_svid:
        yield _make_finding(
            "store-svid", entry, "its key is stored outside", fix=fixes.set_fields(entry, store_svid=False)
        )


def _unknown(entry: Entry) -> Weaknesses:
    unknown = sorted(one for one in entry.selectors if one.type in KNOWN and one.kind not in KNOWN[one.type])
    if unknown and entry.origin is not Origin.DEVELOPMENT:
        yield _make_finding("unknown-selector", entry, f"no attestor finds {unknown[0]}")


def _trust_domain(entry: Entry, setting: Setting) -> Weaknesses:
    own = trust_domain_of(entry.spiffe_id)
    parent = None if entry.parent_id is None else trust_domain_of(entry.parent_id)
    wrong = [one for one in (parent, setting.trust_domain) if one is not None and one != own]
    if wrong and not _PIECE.match(own):
        named = "its parent is of" if wrong[0] == parent else "--trust-domain says"
        yield _make_finding("trust-domain-mismatch", entry, f"{named} {wrong[0]}")


def _federation(entry: Entry, setting: Setting) -> Weaknesses:
    names = [one.removeprefix("spiffe://") for one in entry.federates_with]
    valid = [one for one in names if _is_trust_domain(one)]
    wrong = sorted(one for one in set(names) - set(valid) if not _PIECE.search(one))
    if wrong:
        fix = fixes.set_fields(entry, federates_with=tuple(valid))
        yield _make_finding("federates-with-wildcard", entry, f"{wrong[0]} is not a trust domain", fix=fix)
    unknown = sorted(set(valid) - (setting.partners or set())) if setting.partners is not None else []
    if unknown:
        fix = fixes.set_fields(entry, federates_with=tuple(one for one in valid if one not in unknown))
        yield _make_finding("federates-with-unknown", entry, f"{_few(unknown)} is not among the partners", fix=fix)


def _is_trust_domain(name: str) -> bool:
    try:
        TrustDomain(name)
    except SpiffeIdError:
        return False
    return True


def _names(entry: Entry, *, is_agent: bool) -> Weaknesses:
    wildcards = [one for one in entry.dns_names if "*" in one]
    if wildcards or (is_agent and entry.dns_names):
        fix = fixes.set_fields(
            entry, dns_names=() if is_agent else tuple(one for one in entry.dns_names if one not in wildcards)
        )
        text = f"its certificate names {_few(wildcards or entry.dns_names)}"
        yield _make_finding("dns-name", entry, text, fix=fix, severity=Severity.HIGH if wildcards else None)


def _agent(entry: Entry) -> Weaknesses:
    """Yield the weaknesses of an agent's entry."""
    if entry.admin:
        yield _make_finding("agent-admin", entry, "admin is set", fix=fixes.set_fields(entry, admin=False))
    if entry.downstream:
        yield _make_finding(
            "agent-downstream", entry, "downstream is set", fix=fixes.set_fields(entry, downstream=False)
        )
    if not entry.select("k8s", "sa") or is_of_sidecar(entry):
        return
    container = [one for one in entry.selectors if one.kind in ("container-name", "container-image")]
    if not container and not is_signed(entry.selectors):
        fix = fixes.set_selectors(entry, add=(fixes.CONTAINER, fixes.IMAGE))
        yield _make_finding("whole-pod", entry, "each container of the pod gets the identity", fix=fix)


def agent_entry(entry: Entry, agents: Agents) -> Weaknesses:
    """Yield a weakness if an agent's entry names a container that is not a sidecar's."""
    names = entry.select("k8s", "container-name")
    if names and agents.includes(entry.spiffe_id) and not is_of_sidecar(entry):
        remove = [*names, *entry.select("k8s", "container-image")]
        fix = fixes.set_selectors(entry, remove=remove, add=(fixes.CONTAINER, fixes.IMAGE))
        yield _make_finding("agent-entry", entry, f"{names[0]} is not a sidecar", fix=fix)


_CHECKS: Final[tuple[Callable[[Entry], Weaknesses], ...]] = (
    _selectors,
    _account,
    _images,
    _user,
    _lifetimes,
    _store,
    _unknown,
)
