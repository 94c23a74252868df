"""The entries of the development Workload API: which process gets which SPIFFE ID. One YAML file, read strictly.

```yaml
entries:
  - spiffe_id: spiffe://acme.example/agent/planner
    selectors: {uid: 1000, path: /usr/bin/python3.11, pids: [4711]}   # all that are given must match
    dns_names: [planner.internal]
    ttl_s: 3600
    hint: internal
    federates_with: [partner.example]
  - spiffe_id: spiffe://acme.example/agent/writer
    selectors: {socket: /run/workload/writer/api.sock}   # any process that connects to this socket
```

A process in another pid namespace, as in another container, can only be matched by ``socket`` and ``uid``. The socket
is then its identity: put the socket where only that workload can open it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from delegation_core.errors import ConfigError, Problem
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar_dev.attestation import Peer
from sidecar_dev.pki import X509_TTL_S

MIN_TTL_S: Final = 2
MAX_TTL_S: Final = 7 * 24 * 3600
_ENTRY_KEYS: Final = ("spiffe_id", "selectors", "dns_names", "ttl_s", "hint", "federates_with")
_SELECTOR_KEYS: Final = ("uid", "path", "pids", "socket")
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_AN_EXECUTABLE: Final = "name the executable, with symbolic links resolved"
_A_SOCKET: Final = "name a socket as --socket does"
_HINT: Final = re.compile(r"[ -~]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Conditions on a process. All that are not None must match; at least one is always set."""

    uid: int | None = None
    path: Path | None = None
    pids: frozenset[int] | None = None
    socket: Path | None = None

    def __post_init__(self) -> None:
        if self.uid is None and self.path is None and self.pids is None and self.socket is None:
            raise ValueError("an entry without a selector would match every process")

    def match(self, peer: Peer) -> bool:
        """Return True if the process matches. An empty set of pids matches no process."""
        return (
            (self.uid is None or self.uid == peer.uid)
            and (self.path is None or self.path == peer.path)
            and (self.pids is None or peer.pid in self.pids)
            and (self.socket is None or self.socket == peer.socket_path)
            and (self.socket is not None or not peer.foreign)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A SPIFFE ID, the processes that get it, and the form of their SVIDs. ``federates_with`` adds bundles."""

    spiffe_id: SpiffeId
    selectors: Selectors
    dns_names: tuple[str, ...] = ()
    ttl_s: int = X509_TTL_S
    hint: str = ""
    federates_with: frozenset[TrustDomain] = frozenset()


def parse_entries(text: str, trust_domains: Collection[TrustDomain]) -> tuple[Entry, ...]:
    """Read an entries file whose SPIFFE IDs and federations are all of ``trust_domains``.

    Raises:
        ConfigError: with every problem of the file.
    """
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that also refuses doubled keys
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([Problem("entries", "the file is not unambiguous YAML", "mind its indentation")]) from error
    listed = document.get("entries") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(listed, list):
        raise ConfigError([Problem("entries", "the file is not one list named entries", "write entries: [...]")])
    reader = _Reader(trust_domains)
    entries = [reader.entry(f"entries[{number}]", item) for number, item in enumerate(listed)]
    if reader.problems:
        raise ConfigError(reader.problems)
    return tuple(entry for entry in entries if entry is not None)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a duplicate key: PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise ValueError("a key comes twice")
        return super().construct_mapping(node, deep=deep)


class _Reader:
    """Reads entries and collects their problems."""

    def __init__(self, trust_domains: Collection[TrustDomain]) -> None:
        self._trust_domains = trust_domains
        self.problems: list[Problem] = []

    def entry(self, field: str, item: object) -> Entry | None:
        """Return the entry; None if it is invalid, which is then among the problems."""
        before = len(self.problems)
        members = self._members(field, item, _ENTRY_KEYS)
        spiffe_id = self._spiffe_id(f"{field}.spiffe_id", members.get("spiffe_id"))
        selectors = self._selectors(f"{field}.selectors", members.get("selectors"))
        dns_names = self._texts(f"{field}.dns_names", members.get("dns_names", []), _DNS_NAME)
        ttl_s = self._number(f"{field}.ttl_s", members.get("ttl_s", X509_TTL_S), MIN_TTL_S, MAX_TTL_S)
        hint = self._text(f"{field}.hint", members.get("hint", ""), _HINT)
        federates_with = self._federations(f"{field}.federates_with", members.get("federates_with", []))
        if len(self.problems) > before or spiffe_id is None or selectors is None:
            return None
        return Entry(
            spiffe_id=spiffe_id,
            selectors=selectors,
            dns_names=tuple(dns_names),
            ttl_s=ttl_s,
            hint=hint,
            federates_with=federates_with,
        )

    def _selectors(self, field: str, value: object) -> Selectors | None:
        members = self._members(field, value, _SELECTOR_KEYS)
        if not members:
            self._report(field, "there is none, so every process would match", "give uid, path, pids or socket")
            return None
        uid = self._number(f"{field}.uid", members["uid"], 0, 2**32 - 2) if "uid" in members else None
        path = self._path(f"{field}.path", members["path"], _AN_EXECUTABLE) if "path" in members else None
        pids = self._pids(f"{field}.pids", members["pids"]) if "pids" in members else None
        socket = self._path(f"{field}.socket", members["socket"], _A_SOCKET) if "socket" in members else None
        return Selectors(uid=uid, path=path, pids=pids, socket=socket)

    def _spiffe_id(self, field: str, value: object) -> SpiffeId | None:
        try:
            spiffe_id = SpiffeId(value if isinstance(value, str) else "")
        except SpiffeIdError as error:
            self._report(field, str(error), "write spiffe://trust-domain/path")
            return None
        if spiffe_id.trust_domain not in self._trust_domains:
            self._report(field, "its trust domain is not served here", "add --trust-domain")
            return None
        return spiffe_id

    def _federations(self, field: str, value: object) -> frozenset[TrustDomain]:
        names = self._texts(field, value, re.compile(r".+"))
        served = frozenset(domain for domain in self._trust_domains if domain in names)
        if len(served) < len(names):
            self._report(
                field, "a trust domain is named twice or not served here", "name each once; add --trust-domain"
            )
        return served

    def _pids(self, field: str, value: object) -> frozenset[int]:
        listed = value if isinstance(value, list) else [None]
        return frozenset(self._number(f"{field}[{at}]", pid, 1, 2**22) for at, pid in enumerate(listed))

    def _path(self, field: str, value: object, fix: str) -> Path:
        if not isinstance(value, str) or not value.startswith("/"):
            self._report(field, "it is not an absolute path", fix)
        return Path(str(value))

    def _texts(self, field: str, value: object, pattern: re.Pattern[str]) -> list[str]:
        if not isinstance(value, list):
            self._report(field, "it is not a list", "write [...]")
            return []
        return [self._text(f"{field}[{at}]", item, pattern) for at, item in enumerate(value)]

    def _text(self, field: str, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._report(field, "it is not the kind of text wanted here", "see the example in the documentation")
        return str(value)

    def _number(self, field: str, value: object, lowest: int, highest: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            self._report(field, "it is not a whole number in range", f"write a number from {lowest} to {highest}")
            return lowest
        return value

    def _members(self, field: str, value: object, known: tuple[str, ...]) -> Mapping[str, object]:
        if value is not None and not isinstance(value, dict):
            self._report(field, "it is not a mapping", "write {key: value}")
        members = value if isinstance(value, dict) else {}
        for unknown in [key for key in members if key not in known]:
            self._report(field, f"the key {str(unknown)[:40]!r} is not known", f"use one of {', '.join(known)}")
        return members

    def _report(self, field: str, wrong: str, fix: str) -> None:
        self.problems.append(Problem(field, wrong, fix))
