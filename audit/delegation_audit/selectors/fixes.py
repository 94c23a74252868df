"""Writes fixes in the form of the entry's document: a command, or lines of a manifest or registration file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from delegation_audit.selectors.entries import Entry, Origin, Selector, selector_of

NAMESPACE: Final = selector_of("k8s:ns:NAMESPACE")
ACCOUNT: Final = selector_of("k8s:sa:SERVICE_ACCOUNT")
CONTAINER: Final = selector_of("k8s:container-name:sidecar")
IMAGE: Final = selector_of("k8s:container-image:REGISTRY/NAME@sha256:DIGEST")
OF_POD: Final = (NAMESPACE, ACCOUNT, CONTAINER, IMAGE)
DOCKER_IMAGE: Final = selector_of(
    "docker:image_id:REGISTRY/NAME@sha256:DIGEST"
)  # SPIRE 1.13 has no image_config_digest
USER: Final = selector_of("unix:uid:UID_OF_THIS_WORKLOAD_ALONE")

_UPDATE: Final = ("spire-server", "entry", "update")
_REPEATED: Final = frozenset({"-selector", "-federatesWith", "-dns"})
_FLAGS: Final = {"admin": "admin", "downstream": "downstream", "store_svid": "storeSVID"}


def set_selectors(entry: Entry, *, add: Iterable[Selector] = (), remove: Iterable[Selector] = ()) -> str:
    """Return the fix that changes the selectors; "" if nothing changes. Adds no kind that the entry already has."""
    kept = entry.selectors - set(remove)
    taken = {(one.type, one.kind) for one in kept}
    selectors = kept | {one for one in add if (one.type, one.kind) not in taken}
    return "" if selectors == entry.selectors else set_fields(entry, selectors=selectors)


def set_fields(entry: Entry, **fields: Any) -> str:
    """Return the fix that sets fields of an entry: the update command for a server's entry, else the lines to write."""
    if entry.origin is Origin.SERVER:
        return update_command(replace(entry, **fields))
    if entry.origin in (Origin.STATIC, Origin.TEMPLATE):
        return "\n".join(["spec:", *(f"  {line}" for line in _manifest_lines(entry, fields))])
    names = {"x509_svid_ttl_s": "ttl_s"} if entry.origin is Origin.DEVELOPMENT else _OF_DATA
    lines = (f"{json.dumps(names.get(name, name))}: {json.dumps(_plain(value))}" for name, value in fields.items())
    return ",\n".join(lines)


def deletion(entry: Entry) -> str:
    """Return the fix that removes an entry."""
    if entry.origin is Origin.SERVER and entry.name:
        return f"spire-server entry delete -entryID {shlex.quote(entry.name)}"
    if entry.origin in (Origin.STATIC, Origin.TEMPLATE):
        return f"kubectl delete {entry.origin.lower()} {shlex.quote(entry.name or 'NAME')}"
    return f"remove the entry at {entry.place}"


def update_command(entry: Entry) -> str:
    """Return the command that states the whole entry, because ``entry update`` clears each omitted field."""
    words = [*_UPDATE, "-entryID", entry.name or "ENTRY_ID"]
    words += ["-parentID", entry.parent_id or "PARENT_ID", "-spiffeID", entry.spiffe_id]
    for one in sorted(entry.selectors):
        words += ["-selector", str(one)]
    if entry.x509_svid_ttl_s:
        words += ["-x509SVIDTTL", str(entry.x509_svid_ttl_s)]
    if entry.jwt_svid_ttl_s:
        words += ["-jwtSVIDTTL", str(entry.jwt_svid_ttl_s)]
    for name in entry.federates_with:
        words += ["-federatesWith", name if "://" in name else f"spiffe://{name}"]
    for name in entry.dns_names:
        words += ["-dns", name]
    if entry.hint:
        words += ["-hint", entry.hint]
    if entry.expires_at:
        words += ["-entryExpiry", str(entry.expires_at)]
    words += [f"-{flag}" for name, flag in _FLAGS.items() if getattr(entry, name)]
    return " ".join(map(shlex.quote, words))


def merge_updates(entry: Entry, commands: Iterable[str]) -> str:
    """Merge the changes of several update commands of one entry into one command.

    If two commands set one field to different values, the first one counts; the next audit reports the other.
    """
    before = _options(update_command(entry))
    removed: dict[tuple[str, ...], None] = {}
    added: dict[tuple[str, ...], None] = {}
    for command in commands:
        after = _options(command)
        removed |= dict.fromkeys(one for one in before if one not in after)
        for option in after:
            if option in before or option in added:
                continue
            if option[0] in _REPEATED or all(other[0] != option[0] for other in added):
                added[option] = None
    options = [*(one for one in before if one not in removed), *added]
    options.sort(key=lambda one: (_ORDER.index(one[0]), one))
    return " ".join(map(shlex.quote, [*_UPDATE, *(word for option in options for word in option)]))


def is_update(line: str) -> bool:
    """Return True if the line is a command that ``update_command`` made."""
    return line.startswith(" ".join(_UPDATE))


def _options(command: str) -> list[tuple[str, ...]]:
    words = shlex.split(command)[len(_UPDATE) :]
    options: list[tuple[str, ...]] = []
    while words:
        count = 1 if words[0].removeprefix("-") in _FLAGS.values() else 2
        options.append(tuple(words[:count]))
        words = words[count:]
    return options


def _manifest_lines(entry: Entry, fields: dict[str, Any]) -> list[str]:
    members = _MEMBERS[entry.origin]
    lines: list[str] = []
    for name, value in fields.items():
        if name == "selectors":
            lines += _selector_lines(entry, value)
        elif isinstance(value, tuple):
            lines.append(f"{members[name]}: {json.dumps(list(value))}")
        elif name.endswith("_ttl_s"):
            lines.append(f"{members[name]}: {value}s")
        else:
            lines.append(f"{members[name]}: {json.dumps(value)}")
    return lines


def _selector_lines(entry: Entry, selectors: frozenset[Selector]) -> list[str]:
    if entry.template is None:
        return ["selectors:", *(f"  - {json.dumps(str(one))}" for one in sorted(selectors))]
    written = entry.template.workload_selectors
    removed = {str(one) for one in entry.selectors - selectors}
    added = sorted(str(one) for one in selectors - entry.selectors)
    kept = [one for one in written if one not in removed]
    return ["workloadSelectorTemplates:", *(f"  - {json.dumps(one)}" for one in [*kept, *added])]


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return [{"type": one.type, "value": str(one).partition(":")[2]} for one in sorted(value)]
    return list(value) if isinstance(value, tuple) else value


_ORDER: Final = (
    *("-entryID", "-parentID", "-spiffeID", "-selector", "-x509SVIDTTL", "-jwtSVIDTTL", "-federatesWith", "-dns"),
    *("-hint", "-entryExpiry", *(f"-{flag}" for flag in _FLAGS.values())),
)
_OF_DATA: Final = {"x509_svid_ttl_s": "x509_svid_ttl", "jwt_svid_ttl_s": "jwt_svid_ttl"}
_SHARED: Final = {"federates_with": "federatesWith", "hint": "hint", "admin": "admin", "downstream": "downstream"}
_MEMBERS: Final = {
    Origin.STATIC: {
        **_SHARED,
        "spiffe_id": "spiffeID",
        "parent_id": "parentID",
        "x509_svid_ttl_s": "x509SVIDTTL",
        "jwt_svid_ttl_s": "jwtSVIDTTL",
        "dns_names": "dnsNames",
        "store_svid": "storeSVID",
    },
    Origin.TEMPLATE: {
        **_SHARED,
        "spiffe_id": "spiffeIDTemplate",
        "x509_svid_ttl_s": "ttl",
        "jwt_svid_ttl_s": "jwtTtl",
        "dns_names": "dnsNameTemplates",
        "populates_dns_names": "autoPopulateDNSNames",
        "namespace_selector": "namespaceSelector",
    },
}
