"""Parses all document formats that state entries to ``Entry``. A member of the wrong type is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from delegation_audit.rules import Place
from delegation_audit.selectors import members
from delegation_audit.selectors.entries import SCHEME, Entry, Origin, Selector, Template, selector_of
from delegation_audit.selectors.members import ShapeError

GROUP: Final = "spire.spiffe.io/"
PARTNERS: Final = "ClusterFederatedTrustDomain"
_IDS: Final = frozenset({"spiffe_id", "spiffeId", "spiffeID"})
_OTHER_MARKS: Final = frozenset({"parent_id", "parentId", "parentID", "x509_svid_ttl"})
_JOINED: Final = {"x509_svidttl": "x509_svid_ttl", "jwt_svidttl": "jwt_svid_ttl"}
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_PIECE: Final = re.compile(r"{{[^{}]*}}")
_ACCOUNT: Final = re.compile(r"{{-?\s*\.PodSpec\.(?:ServiceAccountName|DeprecatedServiceAccount)\s*-?}}")
_NAMESPACE: Final = re.compile(r"{{-?\s*\.PodMeta\.Namespace\s*-?}}")
Pieces = tuple[tuple[str, ...], ...]
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


def is_entry(value: object) -> bool:
    """Return True if an object states an entry, valid or not."""
    if not isinstance(value, dict):
        return False
    version = value.get("apiVersion")
    if "kind" in value and isinstance(version, str) and version.startswith(GROUP):
        return value["kind"] in (Origin.STATIC, Origin.TEMPLATE)
    if "entry" in value and "status" in value:
        return True
    # Includes entries without an ID, which must be reported, and other spellings of member names.
    return not _IDS.isdisjoint(value) or ("selectors" in value and not _OTHER_MARKS.isdisjoint(value))


def partner_of(value: object) -> str | None:
    """Return the trust domain of a ClusterFederatedTrustDomain; None for other objects."""
    if not isinstance(value, dict) or value.get("kind") != PARTNERS or not isinstance(value.get("spec"), dict):
        return None
    name = value["spec"].get("trustDomain")
    return name if isinstance(name, str) else None


def entry_of(value: Mapping[str, object], *, file: str, line: int) -> Entry:
    """Parse an object for which ``is_entry`` is true.

    Raises:
        ShapeError: a member is missing, of the wrong type or beyond a limit, or an ID is no SPIFFE ID.
    """
    if value.get("kind") == Origin.TEMPLATE:
        return _template(members.mapping(value, "spec"), _name(value), file, line)
    if value.get("kind") == Origin.STATIC:
        return _static(members.mapping(value, "spec"), _name(value), file, line)
    if "entry" in value and "status" in value:
        return _make_entry(members.mapping(value, "entry"), Origin.SERVER, file, line)
    if "spiffe_id" not in value:
        value = {_snake(name): member for name, member in value.items()}
    if isinstance(value.get("selectors"), dict):
        return _development(value, file, line)
    return _make_entry(value, Origin.SERVER if isinstance(value.get("spiffe_id"), dict) else Origin.DATA, file, line)


def _snake(name: str) -> str:
    """Convert a member name to snake case: ``x509SvidTtl`` and ``x509SVIDTTL`` to ``x509_svid_ttl``."""
    split = _CAPITAL.sub(lambda found: f"_{found[0]}", name).lower()
    return _JOINED.get(split, split)


def _make_entry(value: Mapping[str, object], origin: Origin, file: str, line: int) -> Entry:
    spiffe_id = members.workload_id(value, "spiffe_id")
    name = members.text(value, "id") or members.text(value, "entry_id")
    return Entry(
        place=Place(file=file, line=line, object=f"entry {name} {spiffe_id}" if name else f"entry {spiffe_id}"),
        origin=origin,
        name=name,
        spiffe_id=spiffe_id,
        parent_id=members.any_id(value, "parent_id"),
        selectors=members.selectors(value),
        x509_svid_ttl_s=members.seconds(value, "x509_svid_ttl") or members.seconds(value, "ttl"),
        jwt_svid_ttl_s=members.seconds(value, "jwt_svid_ttl"),
        federates_with=members.texts(value, "federates_with"),
        dns_names=members.texts(value, "dns_names"),
        hint=members.text(value, "hint"),
        admin=members.flag(value, "admin"),
        downstream=members.flag(value, "downstream"),
        store_svid=members.flag(value, "store_svid") or members.flag(value, "storeSvid"),
        expires_at=members.count(value, "expires_at")
        or members.count(value, "entryExpiry")
        or members.count(value, "entry_expiry"),
    )


def _static(spec: Mapping[str, object], name: str, file: str, line: int) -> Entry:
    return Entry(
        place=Place(file=file, line=line, object=f"{Origin.STATIC} {name}"),
        origin=Origin.STATIC,
        name=name,
        spiffe_id=members.workload_id(spec, "spiffeID"),
        parent_id=members.any_id(spec, "parentID"),
        selectors=frozenset(map(selector_of, members.texts(spec, "selectors"))),
        x509_svid_ttl_s=members.duration(spec, "x509SVIDTTL"),
        jwt_svid_ttl_s=members.duration(spec, "jwtSVIDTTL"),
        federates_with=members.texts(spec, "federatesWith"),
        dns_names=members.texts(spec, "dnsNames"),
        hint=members.text(spec, "hint"),
        admin=members.flag(spec, "admin"),
        downstream=members.flag(spec, "downstream"),
        store_svid=members.flag(spec, "storeSVID"),
    )


def _template(spec: Mapping[str, object], name: str, file: str, line: int) -> Entry:
    spiffe_id = members.text(spec, "spiffeIDTemplate")
    if not spiffe_id.startswith(SCHEME):
        raise ShapeError("spiffeIDTemplate does not begin with spiffe://")
    asked = members.texts(spec, "workloadSelectorTemplates")
    pods, namespaces = members.labels(spec, "podSelector"), members.labels(spec, "namespaceSelector")
    selectors = {selector_of(one) for one in asked} | {selector_of(f"k8s:pod-label:{one}") for one in pods}
    for label in namespaces:
        key, _, one = label.partition(":")
        selectors.add(selector_of(f"k8s:ns:{one}" if key == _NAMESPACE_LABEL else f"k8s:ns-label:{label}"))
    for kind, piece in (("sa", _ACCOUNT), ("ns", _NAMESPACE)):
        stated = [one.value for one in selectors if one.kind == kind and "{{" not in one.value]
        written = piece.search(spiffe_id)
        if written and not stated:
            selectors.add(Selector("k8s", kind, written[0]))
        elif len(stated) == 1 and _SEGMENT.fullmatch(stated[0]):
            spiffe_id = piece.sub(stated[0], spiffe_id)
    return Entry(
        place=Place(file=file, line=line, object=f"{Origin.TEMPLATE} {name}"),
        origin=Origin.TEMPLATE,
        name=name,
        spiffe_id=spiffe_id,
        parent_id=None,
        selectors=frozenset(selectors),
        x509_svid_ttl_s=members.duration(spec, "ttl"),
        jwt_svid_ttl_s=members.duration(spec, "jwtTtl"),
        federates_with=members.texts(spec, "federatesWith"),
        dns_names=members.texts(spec, "dnsNameTemplates"),
        hint=members.text(spec, "hint"),
        admin=members.flag(spec, "admin"),
        downstream=members.flag(spec, "downstream"),
        template=Template(
            workload_selectors=asked,
            selects_pods=bool(pods),
            selects_namespaces=bool(namespaces),
            names_one_namespace=any(selector.kind == "ns" for selector in selectors),
            populates_dns_names=members.flag(spec, "autoPopulateDNSNames"),
            fallback=members.flag(spec, "fallback"),
        ),
    )


def _development(value: Mapping[str, object], file: str, line: int) -> Entry:
    spiffe_id = members.workload_id(value, "spiffe_id")
    given = members.mapping(value, "selectors")
    return Entry(
        place=Place(file=file, line=line, object=f"entry {spiffe_id}"),
        origin=Origin.DEVELOPMENT,
        name="",
        spiffe_id=spiffe_id,
        parent_id=None,
        selectors=frozenset(
            Selector("unix" if kind in ("uid", "path") else "dev", kind, members.word(given[kind], "selectors"))
            for kind in given
        ),
        x509_svid_ttl_s=members.count(value, "ttl_s"),
        federates_with=members.texts(value, "federates_with"),
        dns_names=members.texts(value, "dns_names"),
        hint=members.text(value, "hint"),
    )


def pieces_of(template: str) -> Pieces:
    """Split a template into segments, and each segment into the literals around its actions ``{{…}}``."""
    return tuple(tuple(segment.split("\0")) for segment in _PIECE.sub("\0", template).split("/"))


def makes(pieces: Pieces, spiffe_id: str) -> bool:
    """Return True if the template can make the ID: each action stands for at least one character of a segment.

    Uses no regular expression, which would backtrack on a segment with many actions.
    """
    segments = spiffe_id.split("/")
    return len(segments) == len(pieces) and all(map(_fits, pieces, segments))


def _fits(literals: tuple[str, ...], segment: str) -> bool:
    if len(literals) == 1:
        return segment == literals[0]
    first, *between, last = literals
    at = len(first)
    if not segment.startswith(first) or not segment.endswith(last):
        return False
    for literal in between:
        at = segment.find(literal, at + 1)
        if at < 0:
            return False
        at += len(literal)
    return at < len(segment) - len(last)


def _name(value: Mapping[str, object]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else "without a name"
