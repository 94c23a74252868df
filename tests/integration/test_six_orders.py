"""Three services of an existing system, put behind sidecars one at a time in any order: no lawful call is lost.

First everything observes, then ``audit suggest`` proposes the routes, ``audit replay`` proves them, a login starts
chains, and each sidecar enforces. The same question is asked after every step, and answered as without sidecars.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Final

import pytest
import yaml

from sidecar.cli import main
from tests.integration.existing_system import IDS, NEXT, ExistingSystem, Settings, enforce, open_existing_system
from tests.integration.world import FRONT, PLANNER, WRITER, Record, bearer, calling, until

pytestmark = pytest.mark.integration

YESTERDAY: Final = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
CALLS: Final = {"planner": 1, "writer": 3}  # of each question
OF_KEY: Final = {"planner": "no_token", "writer": "malformed_token"}  # in a field of its own, and in Authorization
ANSWER: Final = (
    b"front: 200 planner: 200 POST /drafts written, 200 GET /documents/7 written, 200 GET /documents/8 written"
)

Fact = tuple[str, str, str | None, str, str]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
async def system() -> AsyncIterator[ExistingSystem]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_existing_system(Path(folder)) as opened:
            yield opened


class Question:
    """One question, asked again and again: answered as ever, and recorded exactly as is expected each time."""

    def __init__(self, system: ExistingSystem) -> None:
        self.system = system
        self.expected: Counter[Fact] = Counter()

    async def told(self, expected: Counter[Fact], answered: bytes = ANSWER) -> None:
        answer = await self.system.ask()
        assert (answer.status, answer.body) == (200, answered)
        await self.recorded(expected)

    async def recorded(self, expected: Counter[Fact]) -> None:
        self.expected += expected
        await until(lambda: Counter(map(fact, self.system.records())) >= self.expected)
        assert Counter(map(fact, self.system.records())) == self.expected

    async def told_while(self, change: Awaitable[None], before: Counter[Fact], after: Counter[Fact]) -> None:
        """Ask once so that a call is in flight while ``change`` happens, and once after it."""
        async with self.system.asking() as asked:
            await change
            answer = await self.system.ask()
            assert (answer.status, answer.body) == (200, ANSWER)
            assert not asked.done()
        answer = await asked
        assert (answer.status, answer.body) == (200, ANSWER)
        await self.recorded(before + after)


def fact(record: Record) -> Fact:
    return record["workload"], record["direction"], record["peer"], record["decision"], record["reason"]


def observed(system: ExistingSystem) -> Counter[Fact]:
    """Return what records say of a question while everything observes, by the sidecars there are."""
    found: Counter[Fact] = Counter()
    for caller, following in NEXT.items():
        if following not in system.sidecars:
            continue
        proven = caller in system.sidecars
        peer, reason = (IDS[caller], OF_KEY[following]) if proven else (None, "no_client_cert")
        found[IDS[following], "inbound", peer, "observed_deny", reason] = CALLS[following]
        if proven:
            found[IDS[caller], "outbound", IDS[following], "observed_deny", "no_request_context"] = CALLS[following]
    return found


def delegated() -> Counter[Fact]:
    """Return what records say of a question once every call carries a delegated token."""
    found: Counter[Fact] = Counter()
    for caller, following in NEXT.items():
        found[IDS[following], "inbound", IDS[caller], "allow", "ok"] = CALLS[following]
        found[IDS[caller], "outbound", IDS[following], "allow", "ok"] = CALLS[following]
    return found


async def observe(question: Question, order: tuple[str, ...]) -> str:
    """Put the services behind sidecars in this order; return the folder of their records, as if of two days."""
    system = question.system
    await question.told(Counter())
    for name in order:
        await system.put_behind_a_sidecar(name)
        await question.told(observed(system))
    await question.told(observed(system))
    yesterday = {name: len(sidecar.records()) for name, sidecar in system.sidecars.items()}
    await question.told(observed(system))
    folder = system.world.folder / "observed"
    folder.mkdir()
    for name, sidecar in system.sidecars.items():
        records = sidecar.records()
        for record in records[: yesterday[name]]:
            record["ts"] = YESTERDAY
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return str(folder)


def proposal(system: ExistingSystem, records: str, name: str, capsys: Capture) -> Settings:
    """Return the routes that are proposed for a service. Calls of callers without a sidecar give nobody a right."""
    unnamed = any(record["reason"] == "no_client_cert" for record in system.sidecars[name].records())
    assert main(["audit", "suggest", records, "--workload", IDS[name]]) == (1 if unnamed else 0)
    proposed: Settings = yaml.safe_load(capsys.readouterr().out)
    return proposed


def replayed(system: ExistingSystem, records: str, name: str) -> int:
    """Return if the observed calls of a service would pass once they are delegated and its sidecar enforces."""
    document = yaml.safe_load(system.sidecars[name].settings_path.read_text())
    enforce(document)
    path = system.world.folder / f"{name}-new.yaml"
    path.write_text(yaml.safe_dump(document))
    whose = ["--workload", IDS[name], "--platform", str(system.platform)]
    return main(["audit", "replay", records, "--settings", str(path), "--delegated", *whose])


def audited(system: ExistingSystem, capsys: Capture) -> list[int]:
    """Return the number of hops of each chain in all records. Each is whole, with all its witnesses."""
    files = [str(sidecar.records_path) for sidecar in system.sidecars.values()]
    capsys.readouterr()
    assert main(["audit", "chains", "--json", *files, str(system.world.folder / "sts.records")]) == 0
    chains = json.loads(capsys.readouterr().out)["chains"]
    assert [hop for chain in chains for hop in chain["hops"] if hop["missing_witnesses"]] == []
    return sorted(len(chain["hops"]) for chain in chains)


async def guarded(question: Question) -> None:
    """While everything observes, a service still checks its key: its sidecar shows it to nobody without a permit."""
    system = question.system
    planner = calling(await system.world.source(PLANNER), WRITER)
    for shown, body in (([], b"no key"), (bearer("key-of-planner"), b"POST /drafts written")):
        answer = await system.world.call(system.sidecars["writer"].inbound, planner, "/drafts", headers=shown)
        assert answer.body == body
        reason = "malformed_token" if shown else "no_token"
        await question.recorded(Counter({(WRITER, "inbound", PLANNER, "observed_deny", reason): 1}))


async def refused(question: Question) -> None:
    """A static key without a handle opens nothing any more: by the agent's own sidecar, by mTLS, without TLS."""
    system, expected = question.system, delegated()
    del expected[WRITER, "inbound", PLANNER, "allow", "ok"], expected[PLANNER, "outbound", WRITER, "allow", "ok"]
    expected[PLANNER, "outbound", None, "deny", "no_request_context"] = 3
    system.services["planner"].forwards = False
    await question.told(expected, b"front: 200 planner: " + b", ".join([b"403 no_request_context"] * 3))
    system.services["planner"].forwards = True

    front, key = calling(await system.world.source(FRONT), PLANNER), [("x-api-key", "key-of-front")]
    direct = await system.world.call(system.sidecars["planner"].inbound, front, "/plan", headers=key)
    assert (direct.status, direct.reason) == (401, "no_token")
    await question.recorded(Counter({(PLANNER, "inbound", FRONT, "deny", "no_token"): 1}))
    for name in ("planner", "writer"):
        with pytest.raises(OSError, match="refused"):
            await system.world.call(system.services[name].public_port, None, "/plan", headers=key)


@pytest.mark.parametrize("order", list(permutations(IDS)), ids="-".join)
async def test_no_lawful_call_is_lost_on_the_way_behind_sidecars(
    system: ExistingSystem, order: tuple[str, ...], capsys: Capture
) -> None:
    question = Question(system)
    records = await observe(question, order)
    await guarded(question)
    proposals = {name: proposal(system, records, name, capsys) for name in order}
    asked = {name: proposals[name]["outbound"]["routes"][0]["scopes"] for name in NEXT}
    await system.grant({(IDS[name], IDS[following]): asked[name] for name, following in NEXT.items()})
    for name in order:
        adopting = system.reload(name, partial(system.adopt, proposals[name]))
        await question.told_while(adopting, observed(system), observed(system))
        assert replayed(system, records, name) == 0
    await question.told_while(system.start_chains(), observed(system), delegated())
    for name in order:
        await question.told_while(system.reload(name, enforce), delegated(), delegated())
    await refused(question)
    system.retire_keys()
    await question.told(delegated())
    assert audited(system, capsys) == [1, *[sum(CALLS.values())] * 8]  # one ended where the handle was missing
