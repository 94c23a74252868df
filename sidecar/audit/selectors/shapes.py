"""Shapes in which entries are stated, read into one form. A member of the wrong type is a fault, not a guess."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.audit.rules import Place
from sidecar.audit.selectors.entries import SCHEME, Entry, Origin, Selector, Template, selector_of
from sidecar.delegation.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain

GROUP: Final = "spire.spiffe.io/"
PARTNERS: Final = "ClusterFederatedTrustDomain"
MAX_ITEMS: Final = 256  # selectors, names or partners of an entry
MAX_TEXT: Final = 4096
_IDS: Final = frozenset({"spiffe_id", "spiffeId", "spiffeID"})
_OTHER_MARKS: Final = frozenset({"parent_id", "parentId", "parentID", "x509_svid_ttl"})
_JOINED: Final = {"x509_svidttl": "x509_svid_ttl", "jwt_svidttl": "jwt_svid_ttl"}
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(h|ms|m|s|us|µs|ns)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_TRUE: Final = frozenset({"true", "yes", "on", "y", "1"})  # YAML 1.1 and shells
_PIECE: Final = re.compile(r"{{[^{}]*}}")
_ACCOUNT: Final = re.compile(r"{{-?\s*\.PodSpec\.(?:ServiceAccountName|DeprecatedServiceAccount)\s*-?}}")
_NAMESPACE: Final = re.compile(r"{{-?\s*\.PodMeta\.Namespace\s*-?}}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


class ShapeError(ValueError):
    """The object states an entry that cannot be read. The message names the member and quotes no value."""


def is_entry(value: object) -> bool:
    """Tell if an object states an entry, well or badly."""
    if not isinstance(value, dict):
        return False
    if "kind" in value and str(value.get("apiVersion", "")).startswith(GROUP):
        return value["kind"] in (Origin.STATIC, Origin.TEMPLATE)
    if "entry" in value and "status" in value:
        return True
    # One that lost its ID is to be reported, and people and gRPC tools write the names of members in other ways.
    return not _IDS.isdisjoint(value) or ("selectors" in value and not _OTHER_MARKS.isdisjoint(value))


def partner_of(value: object) -> str | None:
    """Return the trust domain of a ClusterFederatedTrustDomain."""
    if not isinstance(value, dict) or value.get("kind") != PARTNERS or not isinstance(value.get("spec"), dict):
        return None
    name = value["spec"].get("trustDomain")
    return name if isinstance(name, str) else None


def entry_of(value: Mapping[str, object], *, file: str, line: int) -> Entry:
    """Read an object for which ``is_entry`` is true.

    Raises:
        ShapeError: a member is missing or of another type, or an ID is no SPIFFE ID.
    """
    if value.get("kind") == Origin.TEMPLATE:
        return _template(_object(value, "spec"), _name(value), file, line)
    if value.get("kind") == Origin.STATIC:
        return _static(_object(value, "spec"), _name(value), file, line)
    if "entry" in value and "status" in value:
        return _registered(_object(value, "entry"), Origin.SERVER, file, line)
    if "spiffe_id" not in value:
        value = {_snake(name): member for name, member in value.items()}
    if isinstance(value.get("selectors"), dict):
        return _development(value, file, line)
    return _registered(value, Origin.SERVER if isinstance(value.get("spiffe_id"), dict) else Origin.DATA, file, line)


def _snake(name: str) -> str:
    """Return ``x509SvidTtl`` and ``x509SVIDTTL`` as ``x509_svid_ttl``."""
    split = _CAPITAL.sub(lambda found: f"_{found[0]}", name).lower()
    return _JOINED.get(split, split)


def _registered(value: Mapping[str, object], origin: Origin, file: str, line: int) -> Entry:
    spiffe_id = _workload_id(value, "spiffe_id")
    name = _text(value, "id") or _text(value, "entry_id")
    return Entry(
        place=Place(file=file, line=line, object=f"entry {name} {spiffe_id}" if name else f"entry {spiffe_id}"),
        origin=origin,
        name=name,
        spiffe_id=spiffe_id,
        parent_id=_id(value, "parent_id"),
        selectors=_pairs(value),
        x509_svid_ttl_s=_seconds(value, "x509_svid_ttl") or _seconds(value, "ttl"),
        jwt_svid_ttl_s=_seconds(value, "jwt_svid_ttl"),
        federates_with=_texts(value, "federates_with"),
        dns_names=_texts(value, "dns_names"),
        hint=_text(value, "hint"),
        admin=_flag(value, "admin"),
        downstream=_flag(value, "downstream"),
        store_svid=_flag(value, "store_svid") or _flag(value, "storeSvid"),
        expires_at=_count(value, "expires_at") or _count(value, "entryExpiry") or _count(value, "entry_expiry"),
    )


def _static(spec: Mapping[str, object], name: str, file: str, line: int) -> Entry:
    return Entry(
        place=Place(file=file, line=line, object=f"{Origin.STATIC} {name}"),
        origin=Origin.STATIC,
        name=name,
        spiffe_id=_workload_id(spec, "spiffeID"),
        parent_id=_id(spec, "parentID"),
        selectors=frozenset(map(selector_of, _texts(spec, "selectors"))),
        x509_svid_ttl_s=_duration(spec, "x509SVIDTTL"),
        jwt_svid_ttl_s=_duration(spec, "jwtSVIDTTL"),
        federates_with=_texts(spec, "federatesWith"),
        dns_names=_texts(spec, "dnsNames"),
        hint=_text(spec, "hint"),
        admin=_flag(spec, "admin"),
        downstream=_flag(spec, "downstream"),
        store_svid=_flag(spec, "storeSVID"),
    )


def _template(spec: Mapping[str, object], name: str, file: str, line: int) -> Entry:
    spiffe_id = _text(spec, "spiffeIDTemplate")
    if not spiffe_id.startswith(SCHEME):
        raise ShapeError("spiffeIDTemplate does not begin with spiffe://")
    asked = _texts(spec, "workloadSelectorTemplates")
    pods, namespaces = _labels(spec, "podSelector"), _labels(spec, "namespaceSelector")
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
        x509_svid_ttl_s=_duration(spec, "ttl"),
        jwt_svid_ttl_s=_duration(spec, "jwtTtl"),
        federates_with=_texts(spec, "federatesWith"),
        dns_names=_texts(spec, "dnsNameTemplates"),
        hint=_text(spec, "hint"),
        admin=_flag(spec, "admin"),
        downstream=_flag(spec, "downstream"),
        template=Template(
            workload_selectors=asked,
            selects_pods=bool(pods),
            selects_namespaces=bool(namespaces),
            names_one_namespace=any(selector.kind == "ns" for selector in selectors),
            populates_dns_names=_flag(spec, "autoPopulateDNSNames"),
            fallback=_flag(spec, "fallback"),
        ),
    )


def _development(value: Mapping[str, object], file: str, line: int) -> Entry:
    spiffe_id = _workload_id(value, "spiffe_id")
    given = _object(value, "selectors")
    return Entry(
        place=Place(file=file, line=line, object=f"entry {spiffe_id}"),
        origin=Origin.DEVELOPMENT,
        name="",
        spiffe_id=spiffe_id,
        parent_id=None,
        selectors=frozenset(
            Selector("unix" if kind in ("uid", "path") else "dev", kind, _word(given[kind], "selectors"))
            for kind in given
        ),
        x509_svid_ttl_s=_count(value, "ttl_s"),
        federates_with=_texts(value, "federates_with"),
        dns_names=_texts(value, "dns_names"),
        hint=_text(value, "hint"),
    )


def id_pattern(template: str) -> re.Pattern[str]:
    """Return a pattern of the SPIFFE IDs that a template makes: each of its pieces is a part of one segment."""
    literal = _PIECE.split(template)
    return re.compile("[A-Za-z0-9._-]+".join(map(re.escape, literal)))


def _name(value: Mapping[str, object]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else "without a name"


def _object(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    member = value.get(name)
    if not isinstance(member, dict):
        raise ShapeError(f"{name} is no object")
    return member


def _text(value: Mapping[str, object], name: str) -> str:
    member = value.get(name)
    if member is None:
        return ""
    if not isinstance(member, str) or len(member) > MAX_TEXT:
        raise ShapeError(f"{name} is no text, or longer than {MAX_TEXT} characters")
    return member


def _texts(value: Mapping[str, object], name: str) -> tuple[str, ...]:
    member = value.get(name)
    if member is None:
        return ()
    if not isinstance(member, list) or not all(isinstance(one, str) and len(one) <= MAX_TEXT for one in member):
        raise ShapeError(f"{name} is no list of texts of at most {MAX_TEXT} characters")
    if len(member) > MAX_ITEMS:
        raise ShapeError(f"{name} has more than {MAX_ITEMS} items")
    return tuple(member)


def _flag(value: Mapping[str, object], name: str) -> bool:
    member = value.get(name)
    if isinstance(member, dict | list | float):
        raise ShapeError(f"{name} is neither true nor false")
    return member is True or str(member).lower() in _TRUE


def _count(value: Mapping[str, object], name: str) -> int:
    """Read a number, also as digits in a text: protobuf writes 64-bit numbers so."""
    member = value.get(name)
    if member is None:
        return 0
    if isinstance(member, str) and re.fullmatch(r"[0-9]{1,18}", member):
        return int(member)
    if isinstance(member, bool) or not isinstance(member, int) or member < 0:
        raise ShapeError(f"{name} is no count")
    return member


def _seconds(value: Mapping[str, object], name: str) -> int:
    member = value.get(name)
    return _duration(value, name) if isinstance(member, str) and not member.isdecimal() else _count(value, name)


def _duration(value: Mapping[str, object], name: str) -> int:
    """Read a duration as Go writes it, in seconds, rounded up."""
    member = value.get(name)
    if member is None:
        return 0
    pieces = list(_DURATION.finditer(member)) if isinstance(member, str) else []
    if not pieces or "".join(piece[0] for piece in pieces) != member:
        raise ShapeError(f"{name} is no duration such as 1h or 300s")
    seconds = sum(float(piece[1]) * _UNITS[piece[2]] for piece in pieces)
    return int(seconds) + (seconds % 1 > 0)


def _workload_id(value: Mapping[str, object], name: str) -> str:
    return str(_checked(SpiffeId, _id(value, name) or "", name))


def _id(value: Mapping[str, object], name: str) -> str | None:
    """Read an ID as a text, or in two members as a server writes it. A parent may be a whole trust domain."""
    member = value.get(name)
    if member is None:
        return None
    if isinstance(member, dict):
        domain, path = member.get("trust_domain", member.get("trustDomain")), member.get("path", "")
        whole = isinstance(domain, str) and isinstance(path, str) and "/" not in domain
        member = f"{SCHEME}{domain}{path}" if whole else None
    if not isinstance(member, str):
        raise ShapeError(f"{name} is not a valid SPIFFE ID")
    if member.startswith(SCHEME) and "/" not in member.removeprefix(SCHEME):
        _checked(TrustDomain, member.removeprefix(SCHEME), name)
        return member
    return str(_checked(SpiffeId, member, name))


def _checked(make: Callable[[str], str], text: str, name: str) -> str:
    try:
        return make(text)
    except SpiffeIdError as error:
        raise ShapeError(f"{name} is not a valid SPIFFE ID: {error}") from None


def _pairs(value: Mapping[str, object]) -> frozenset[Selector]:
    member = value.get("selectors")
    if member is None:
        return frozenset()
    if not isinstance(member, list) or len(member) > MAX_ITEMS:
        raise ShapeError(f"selectors is no list, or has more than {MAX_ITEMS} items")
    found = set()
    for one in member:
        if isinstance(one, str):  # as manifests and commands write it
            type_, _, text = one.partition(":")
        elif isinstance(one, dict):
            type_, text = _text(one, "type"), _text(one, "value")
        else:
            raise ShapeError("a selector has no type and value")
        if len(text) > MAX_TEXT:
            raise ShapeError(f"a selector is longer than {MAX_TEXT} characters")
        if not type_ or not text:
            raise ShapeError("a selector has no type and value")
        found.add(selector_of(f"{type_}:{text}"))
    return frozenset(found)


def _labels(spec: Mapping[str, object], name: str) -> list[str]:
    """Return the labels of a selector as ``key:value``; an expression counts as one, with its text as the value."""
    member = spec.get(name)
    if member is None:
        return []
    if not isinstance(member, dict):
        raise ShapeError(f"{name} is no object")
    labels, expressions = member.get("matchLabels"), member.get("matchExpressions")
    labels, expressions = {} if labels is None else labels, [] if expressions is None else expressions
    if not isinstance(labels, dict) or not isinstance(expressions, list) or len(labels) + len(expressions) > MAX_ITEMS:
        raise ShapeError(f"{name} is no label selector, or has more than {MAX_ITEMS} labels")
    found = [f"{key}:{_word(one, name)}" for key, one in labels.items()]
    for expression in expressions:
        if not isinstance(expression, dict) or not isinstance(expression.get("key"), str):
            raise ShapeError(f"{name} has an expression without a key")
        chosen = expression.get("values") or []
        values = [_word(one, name) for one in chosen[:MAX_ITEMS]] if isinstance(chosen, list) else []
        operator = _word(expression.get("operator"), name)
        one_of = operator == "In" and len(values) == 1
        key = expression["key"]
        found.append(f"{key}:{values[0]}" if one_of else f"({key} {operator} {', '.join(values)}):")
    return found


def _word(value: object, name: str) -> str:
    """Return a scalar as text. Of anything else not even a part: an alias makes it as long as its author likes."""
    if isinstance(value, list) and len(value) <= MAX_ITEMS and all(isinstance(one, int) for one in value):
        return ",".join(map(str, value))
    if isinstance(value, dict | list) or len(text := str(value)) > MAX_TEXT:
        raise ShapeError(f"{name} holds a value that is no text, or longer than {MAX_TEXT} characters")
    return text
