from pathlib import Path

import pytest

from delegation_core.errors import ConfigError, Problem
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import MAX_BYTES
from sidecar.config.sections import Section
from sidecar.config.validation import Findings, load_validated
from tests.config.documents import ABSENT, changed, example, problems, written

AGENT = example("agent")
SECRET = "hunter2"
WILDCARD = "a path segment is one or more of A-Z a-z 0-9 dot dash underscore, not . or .."
LINE = "is empty, too long or holds unprintable characters"
DOMAIN = "a trust domain is 1 to 255 characters of a-z, 0-9, dot, dash and underscore"


@pytest.mark.parametrize(
    ("path", "value", "field", "wrong"),
    [
        pytest.param("inbuond", {}, "inbuond", "is not a setting", id="unknown-section"),
        pytest.param(
            "inbound.routes.0.scope", [], "inbound.routes[0].scope", "is not a setting", id="unknown-in-a-list"
        ),
        pytest.param("inbound.limits", {"x": 1}, "inbound.limits.x", "is not a setting", id="unknown-limit"),
        pytest.param(
            "records", {"sink": {"x": 1, "file": "/a"}}, "records.sink.x", "is not a setting", id="unknown-in-sink"
        ),
        pytest.param("inbound.agent", ABSENT, "inbound.agent", "is missing", id="missing"),
        pytest.param(
            "inbound.routes.0.match.methods", [], "inbound.routes[0].match.methods", "is empty", id="no-method"
        ),
        pytest.param(
            "inbound.routes.0.allow_self", "off", "inbound.routes[0].allow_self", "is neither true nor false", id="off"
        ),
        pytest.param(
            "inbound.routes.0.allow_self", 1, "inbound.routes[0].allow_self", "is neither true nor false", id="one"
        ),
        pytest.param(
            "inbound.routes.0.max_calls",
            True,
            "inbound.routes[0].max_calls",
            "is not a whole number",
            id="bool-as-number",
        ),
        pytest.param(
            "inbound.routes.0.max_calls",
            "16",
            "inbound.routes[0].max_calls",
            "is not a whole number",
            id="quoted-number",
        ),
        pytest.param(
            "inbound.routes.0.max_calls", 1.5, "inbound.routes[0].max_calls", "is not a whole number", id="fraction"
        ),
        pytest.param("inbound.routes.0.max_calls", -1, "inbound.routes[0].max_calls", "is out of range", id="negative"),
        pytest.param(
            "inbound.routes.0.linger_s", -1, "inbound.routes[0].linger_s", "is out of range", id="negative-time"
        ),
        pytest.param(
            "inbound.limits", {"max_body_bytes": 0}, "inbound.limits.max_body_bytes", "is out of range", id="no-limit"
        ),
        pytest.param("exchange.timeout_s", 0, "exchange.timeout_s", "is out of range", id="no-time"),
        pytest.param("drain_s", "20s", "drain_s", "is not a number", id="a-unit"),
        pytest.param(
            "inbound.routes.0.scopes", "docs.read", "inbound.routes[0].scopes", "is not a list", id="text-for-a-list"
        ),
        pytest.param(
            "inbound.routes.0.scopes",
            ["a b"],
            "inbound.routes[0].scopes[0]",
            "is not exactly one scope",
            id="two-scopes",
        ),
        pytest.param(
            "inbound.routes.0.scopes", [1], "inbound.routes[0].scopes[0]", "is not text", id="number-as-scope"
        ),
        pytest.param(
            "inbound.routes.0.peers",
            ["acme.example/x"],
            "inbound.routes[0].peers[0]",
            "a SPIFFE ID starts with spiffe://",
            id="no-spiffe-id",
        ),
        pytest.param(
            "inbound.routes.0.peers",
            ["spiffe://acme.example"],
            "inbound.routes[0].peers[0]",
            "a workload's SPIFFE ID has a path",
            id="trust-domain-as-peer",
        ),
        pytest.param(
            "inbound.routes.0.peers", ["spiffe://acme.example/*"], "inbound.routes[0].peers[0]", WILDCARD, id="wildcard"
        ),
        pytest.param("inbound.routes.0.name", "none", "inbound.routes[0].name", "is not a name", id="reserved-name"),
        pytest.param("inbound.listen", "7443", "inbound.listen", "is not a listen address", id="port-alone"),
        pytest.param("inbound.listen", ":7443", "inbound.listen", "is not a listen address", id="no-host"),
        pytest.param("inbound.listen", "0.0.0.0:70000", "inbound.listen", "is not a listen address", id="large-port"),
        pytest.param("inbound.listen", 7443, "inbound.listen", "is not text", id="number-as-address"),
        pytest.param(
            "outbound.routes.0.upstream",
            "https://crm/path",
            "outbound.routes[0].upstream",
            "holds a path or a query",
            id="path-in-upstream",
        ),
        pytest.param(
            "issuers.0.jwks", "ftp://x/y", "issuers[0].jwks", "it is not an absolute http or https URL", id="ftp"
        ),
        pytest.param(
            "issuers.0.jwks",
            "https://u:p@x/y",
            "issuers[0].jwks",
            "it has user info or a fragment",
            id="secret-in-url",
        ),
        pytest.param("issuers.0.profile", "okta", "issuers[0].profile", "has an unknown value", id="unknown-profile"),
        pytest.param(
            "issuers.0.profile",
            {"preset": "sts", "actor": "sub"},
            "issuers[0].profile.actor",
            "has an unknown value",
            id="unknown-actor-form",
        ),
        pytest.param(
            "issuers.0.actor_trust_domains", ["Acme"], "issuers[0].actor_trust_domains[0]", DOMAIN, id="trust-domain"
        ),
        pytest.param("issuers.0.issuer", "", "issuers[0].issuer", LINE, id="empty-text"),
        pytest.param("issuers.0.issuer", "a\u202eb", "issuers[0].issuer", LINE, id="text-that-acts"),
        pytest.param("issuers.0.issuer", "a" * 2049, "issuers[0].issuer", LINE, id="long-text"),
        pytest.param(
            "issuers.0.tls", {"ca": "ca.pem"}, "issuers[0].tls.ca", "is not an absolute path", id="relative-path"
        ),
        pytest.param("inbound.listen", "[1.2]:7443", "inbound.listen", "is not a listen address", id="broken-ipv6"),
        pytest.param("records", {"sink": "syslog"}, "records.sink", "has an unknown value", id="unknown-sink"),
        pytest.param(
            "records",
            {"on_failure": "ignore"},
            "records.on_failure",
            "has an unknown value",
            id="records-may-not-be-lost",
        ),
        pytest.param(
            "identity.workload_api",
            "/run/agent.sock",
            "identity.workload_api",
            "a Workload API address must be unix:///absolute/path or tcp://IP-address:port",
            id="no-socket-url",
        ),
        pytest.param(
            "entry",
            {"issuers": [], "may_call": []},
            "entry.issuers",
            "is empty, and so is may_call",
            id="entry-without-issuer",
        ),
        pytest.param("inbound", [], "inbound", "is not a mapping", id="list-for-a-section"),
        pytest.param("exchange.adapter", "acme", "exchange.adapter", "it is unknown", id="unknown-adapter"),
    ],
)
def test_a_fault_is_told_with_its_field(path: str, value: object, field: str, wrong: str, tmp_path: Path) -> None:
    found = problems(tmp_path, changed(AGENT, (path, value)))
    (problem,) = [problem for problem in found if problem.field == field]
    assert problem.wrong == wrong
    assert problem.fix


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("inbound.routes.0.protocol", "a2a-http", id="a2a"),
        pytest.param("inbound.routes.0.websocket", True, id="websocket"),
        pytest.param("issuers.0.metadata", "https://x", id="metadata"),
        pytest.param("workers", 4, id="workers"),
        pytest.param("platform", {}, id="platform-ceiling"),
    ],
)
def test_what_is_not_spoken_yet_is_refused_by_name(path: str, value: object, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(AGENT, (path, value)))
    assert problem.field == path.replace(".0.", "[0].")
    assert problem.wrong == "is not available yet"


def test_null_means_not_set(tmp_path: Path) -> None:
    assert problems(tmp_path, changed(AGENT, ("workers", None), ("entry", None), ("identity.files", None))) == []


def test_a_misspelt_key_is_told_its_spelling(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(AGENT, ("inbound.routes.0.may_cal", [])))
    assert problem.fix == "did you mean may_call?"


def test_every_problem_is_in_the_one_error(tmp_path: Path) -> None:
    worst = changed(AGENT, ("inbuond", {}), ("inbound.agent", 1), ("inbound.routes.0.name", ABSENT), ("workers", 2))
    with pytest.raises(ConfigError) as refused:
        load_sidecar(written(tmp_path, worst), {})
    assert len(refused.value.problems) == 4
    assert all(str(problem) in str(refused.value) for problem in refused.value.problems)


@pytest.mark.parametrize(
    "path",
    [
        "inbound.agent",
        "inbound.listen",
        "issuers.0.jwks",
        "outbound.routes.0.peer",
        "records.sink",
        "drain_s",
        "inbound.routes.0.scopes",
        "exchange.peer",
        "issuers.0.profile",
    ],
)
def test_no_value_is_ever_quoted(path: str, tmp_path: Path) -> None:
    base = changed(AGENT, ("records", {}))
    found = problems(tmp_path, changed(base, (path, SECRET)))
    assert found
    assert SECRET not in "".join(map(str, found))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("[]", "is not a mapping", id="a-list"),
        pytest.param("a: 1\na: 2", "the key a appears twice", id="doubled-key"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told_so(text: str, wrong: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.wrong == wrong


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check(tmp_path / "absent.yaml", {}).problems
    assert problem.field.endswith("absent.yaml")
    assert problem.wrong == "cannot be read (No such file or directory)"
    (tmp_path / "latin").write_bytes(b"a: \xff")
    assert [problem.wrong for problem in check(tmp_path / "latin", {}).problems] == ["is not UTF-8 text"]


@pytest.mark.parametrize("filler", ["x", "ü", "界"])
@pytest.mark.parametrize("shift", range(3))
def test_a_file_beyond_the_limit_is_never_read_in_part(filler: str, shift: int, tmp_path: Path) -> None:
    file = written(tmp_path, AGENT)
    comment = f"#{' ' * shift}{filler * (MAX_BYTES // len(filler.encode()))}\n"
    file.write_text(f"{file.read_text()}\n{comment}deny: [{{subject: mallory}}]\n", encoding="utf-8")
    assert [problem.wrong for problem in check(file, {}).problems] == [f"is larger than {MAX_BYTES} bytes"]


def test_an_empty_file_lacks_what_is_needed_and_is_no_crash(tmp_path: Path) -> None:
    assert {problem.field for problem in problems(tmp_path, "")} == {"inbound", "identity.workload_api"}


class Small(Section):
    """Settings with one key."""

    key: int


@pytest.mark.parametrize("finds", [None, "the document", "the second pass"])
def test_a_problem_refuses_settings_that_could_be_built(finds: str | None, tmp_path: Path) -> None:
    problem = Problem("key", "is wrong", "change it")

    def build(file: Small, findings: Findings) -> int:
        findings.extend(lambda: [problem] if finds == "the second pass" else [])
        return file.key

    def load() -> int:
        told = [problem] if finds == "the document" else []
        return load_validated(written(tmp_path, {"key": 1}), {}, Small, build, check_document=lambda _document: told)

    if finds is None:
        assert load() == 1
        return
    with pytest.raises(ConfigError) as refused:
        load()
    assert refused.value.problems == (problem,)
