"""``sidecar sts revoke`` against real replicas, with the operator's SVID in files."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from delegation_core.revocation import Kind
from sidecar.cli import main
from tests.fakes.sts_server import STS, RunningSts, running_sts, token_request
from tests.integration.sts.test_revocation_endpoint import ANN, BOB, EVE, mesh_with_register

pytestmark = pytest.mark.integration


def identity(sts: RunningSts, folder: Path, operator: str) -> list[str]:
    svid = sts.authority.issue_x509(operator)  # type: ignore[arg-type]
    words: list[str] = []
    for name, content in (("svid", svid.chain_pem), ("key", svid.key_pem), ("bundle", sts.authority.bundle_pem())):
        path = folder / f"{operator.rpartition('/')[2]}-{name}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        words += [f"--{name}", str(path)]
    return words


async def sent(sts: RunningSts, folder: Path, *words: str, by: str = ANN, to: tuple[str, ...] = ()) -> int:
    host, port = sts.server.address
    places = ["--to", f"https://{host}:{port}", *to, "--peer", STS, "--timeout", "3"]
    return await asyncio.to_thread(main, ["sts", "revoke", *words, *places, *identity(sts, folder, by)])


REVOKE = ("--txn", "txn-1", "--reason", "INC-42", "--for", "8h")


async def test_an_order_reaches_every_replica_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        register = sts.mesh.service.register
        assert register is not None
        assert await sent(sts, tmp_path, *REVOKE, "--json") == 0
        ((name, order),) = register.book.orders.items()
        told = json.loads(capsys.readouterr().out)
        assert (told["id"], [one["state"] for one in told["replicas"]]) == (name, ["revoke"])
        assert (order.operator, order.reason) == (ANN, "INC-42")
        assert register.revocations(sts.mesh.policy).names(Kind.TXN) == {"txn-1"}
        assert await sent(sts, tmp_path, "--list") == 0
        assert f"{name}  revoke txn txn-1" in capsys.readouterr().out
        assert await sent(sts, tmp_path, "--lift", name, "--reason", "over", by=BOB) == 0
        assert not register.revocations(sts.mesh.policy).in_force


async def test_the_command_says_if_a_name_was_seen_and_refuses_an_unknown_issuer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        assert await sent(sts, tmp_path, *REVOKE) == 0
        assert re.search("until 20.*; this name was NOT SEEN here since 20", capsys.readouterr().out)
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 400
        assert await sent(sts, tmp_path, "--jti", "jti-2", *REVOKE[2:]) == 0
        assert re.search("this name was last seen here at 20", capsys.readouterr().out)
        user = ("alice", "--alone", *REVOKE[2:])
        assert await sent(sts, tmp_path, "--subject", "https://login.acme.example/", *user) == 1
        assert "did you mean https://login.acme.example?" in capsys.readouterr().out
        assert await sent(sts, tmp_path, "--subject", "https://else.example", *user, "--unknown") == 0


async def test_a_replica_that_is_not_reached_is_named_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        to = ("https://127.0.0.1:1", "https://nowhere.invalid")
        assert await sent(sts, tmp_path, *REVOKE, to=to) == 1
        told = capsys.readouterr().err
        assert all(one in told for one in to)
        assert sts.mesh.service.register is not None
        assert len(sts.mesh.service.register.book.orders) == 1, "the others have it all the same"


async def test_a_replica_that_may_lack_the_order_is_named_and_the_exit_code_is_1_unless_it_accepted_it_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        register = sts.mesh.service.register
        assert register is not None
        host, port = sts.server.address
        register.peers.follow(["https://10.0.0.9:7444", f"https://{host}:{port}"])
        assert await sent(sts, tmp_path, *REVOKE) == 1
        assert capsys.readouterr().err.startswith("10.0.0.9:7444 may lack the order")
        assert await sent(sts, tmp_path, *REVOKE, "--json") == 1
        assert json.loads(capsys.readouterr().out)["missing"] == ["10.0.0.9:7444"]
        register.peers.follow([f"https://{host}:{port}"])
        assert await sent(sts, tmp_path, *REVOKE) == 0


async def test_a_refused_order_says_why_to_an_operator_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        words = ("--actor", "spiffe://acme.example/agent/planner", "--reason", "INC-42", "--for", "8h")
        assert await sent(sts, tmp_path, *words, by=BOB) == 1
        refused = capsys.readouterr().out
        assert "may not revoke this kind: actor" in refused
        assert "REFUSED  status 4" in refused
        assert "NOT REACHED" not in refused
        assert await sent(sts, tmp_path, *REVOKE, by=EVE) == 1
        assert "not a listed operator" not in capsys.readouterr().out


async def test_a_whole_user_needs_two_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_sts(mesh_with_register()) as sts:
        register = sts.mesh.service.register
        assert register is not None
        words = ("--subject", "https://login.acme.example", "alice", "--reason", "INC-42", "--for", "8h")
        assert await sent(sts, tmp_path, *words) == 0
        assert "--confirm" in capsys.readouterr().out
        (name,) = register.book.orders
        assert re.fullmatch("[0-9a-f]{32}", name)  # one that begins with a hyphen would be read as an option
        assert not register.revocations(sts.mesh.policy).in_force
        assert await sent(sts, tmp_path, "--confirm", name, "--reason", "seen", by=BOB) == 0
        assert register.revocations(sts.mesh.policy).names(Kind.SUBJECT)


async def test_a_lifted_revocation_is_listed_as_lifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_sts(mesh_with_register()) as sts:
        assert await sent(sts, tmp_path, *REVOKE) == 0
        register = sts.mesh.service.register
        assert register is not None
        (name,) = register.book.orders
        listed: list[bool] = []
        for words in (("--list",), ("--lift", name, "--reason", "a mistake"), ("--list",)):
            capsys.readouterr()
            assert await sent(sts, tmp_path, *words) == 0
            listed += [line.endswith("LIFTED") for line in capsys.readouterr().out.splitlines() if "revoke" in line]
        assert listed == [False, True]
