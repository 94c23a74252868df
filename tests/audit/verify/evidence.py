"""Record streams as sidecars and their token service write them, with checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from delegation_audit.verify.streams import Streams
from delegation_audit.verify.verdicts import Verdict, judge
from delegation_core.checkpoint import Head
from delegation_core.keyset import KeySet, parse_jwks
from delegation_core.records.hash_chain import HashChain, line_hash
from delegation_core.records.log_lines import Line
from delegation_core.records.record import FIELDS
from delegation_core.records.record_text import encode
from sidecar.sts.keys import KeyRing, SigningKey
from tests.fakes.tokens import ISSUER, NOW, WRITER

KEY = SigningKey.generate()
KEYS = parse_jwks(KeyRing(KEY).jwks())
STS = "spiffe://acme.example/sts"


class Writer:
    """One process that writes records."""

    def __init__(self, run: str = "r1", workload: str = WRITER) -> None:
        self.run = run
        self.workload = workload
        self.lines: list[bytes] = []
        self._chain = HashChain(encode)
        self._seq = 0

    def write(self, count: int = 1, event: str = "request", **fields: Any) -> None:
        for _ in range(count):
            self._seq += 1
            record = {**dict.fromkeys(FIELDS), "event": event, "ts": "2026-01-01T00:00:00.000000Z", "run": self.run}
            record |= {"seq": self._seq, "workload": self.workload, "subject": f"user-{self._seq}", **fields}
            self.lines += self._chain([record]).splitlines()

    def lose(self, count: int = 1) -> None:
        self._seq += count

    def head(self) -> Head:
        return Head(run=self.run, seq=self._seq, hash=line_hash(self.lines[-1]))

    def checkpoint(self, key: SigningKey = KEY, **facts: Any) -> str:
        """Have the head countersigned and record it; returns the text."""
        told = {"head": self.head(), "issuer": ISSUER, "workload": self.workload, "at": NOW, **facts}
        text = key.countersign(told.pop("head"), **told).text()
        self.write(event="records.countersigned", checkpoint=text)
        return text


def verdict(
    *files: Sequence[bytes], keys: KeySet | None = KEYS, countersigned: bool = False, extra: Sequence[bytes] = ()
) -> Verdict:
    """Judge files of lines, named ``0``, ``1`` and so on."""
    streams = Streams()
    for name, lines in enumerate((*files, extra) if extra else files):
        streams.read(Line(str(name), number, line) for number, line in enumerate(lines, 1))
    return judge(streams, keys, countersigned=countersigned)


def kinds(found: Verdict) -> list[str]:
    return [one.kind.value for one in found.findings]


def changed(line: bytes, **fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(line), **fields})


def chained_again(lines: Sequence[bytes]) -> list[bytes]:
    """Compute the chain of lines again, as a forger who holds the file would."""
    chain = HashChain(encode)
    records = [{**orjson.loads(line), "prev": None} for line in lines]
    return b"".join(chain([record]) for record in records).splitlines()
