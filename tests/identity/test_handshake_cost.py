"""The cost of a handshake with a known peer in interpreted code: bytecodes and calls. The same on every machine.

``pytest -m budget -s tests/identity/test_handshake_cost.py`` prints the counts.
The limit is the last count plus a small margin:
a change that makes a new connection more expensive has to raise it here.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from sidecar.identity import tls
from tests.identity.test_handshake import PEER, plain, shake, source_of
from tests.proxy.test_warm_cost import ROOT, TIMES, Cost

MOST_BYTECODES: Final = 2_300


@pytest.mark.budget
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
def test_a_handshake_with_a_known_peer_runs_no_more_bytecodes_than_it_did() -> None:
    server, client = tls.server_context(source_of()), plain(server=False, chain=[PEER])
    shake(server, client)
    cost = Cost()
    gc.collect()
    gc.disable()
    sys.settrace(cost)
    try:
        for _ in range(TIMES):
            shake(server, client)
    finally:
        sys.settrace(None)
        gc.enable()
    files: Counter[str] = Counter()
    for code, count in cost.bytecodes.items():
        path = Path(code.co_filename)
        if path.is_relative_to(ROOT) or code.co_filename == "<string>":
            files[path.name] += count
    for name, count in files.most_common():
        print(f"{name:24} {count / TIMES:8.0f} bytecodes")  # noqa: T201 - the table, with -s
    assert MOST_BYTECODES / 2 < files.total() / TIMES <= MOST_BYTECODES
