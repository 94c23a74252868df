import ast
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from delegation_core.profile_presets import PRESETS
from sidecar.cli import main as main_command
from sidecar.config import json_schema, load_sts
from sidecar.config.doc_examples import as_yaml, examples_in
from sidecar.config.doc_places import places
from sidecar.config.docs import default_of, main, pages, schemas, sections, unit_of
from sidecar.config.document import parse_document
from sidecar.config.field_types import start_of
from sidecar.config.platform_file import load_platform
from sidecar.config.settings import InboundSettings
from sidecar.config.sidecar_file import load_sidecar
from tests.config.documents import EXAMPLES, problems

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = sorted((EXAMPLES / "reference").glob("*.yaml"))
FOUND = examples_in(EXAMPLES)
PAGES = pages(EXAMPLES)
SECTIONS = sections()
KEYS = [(name, key) for name, schema in SECTIONS.items() for key in schema["properties"]]
GENERATED = sorted(
    path
    for path in (*DOCS.glob("*.md"), *(ROOT / "helm").glob("*/README.md"))
    if re.search(r"<!-- .*[Ww]ritten by .?make docs", path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_current(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page], "run: make docs"


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_says_whose_tokens_it_is_for(preset: str) -> None:
    section = PAGES["profiles.md"].partition(f"## {preset}\n\n")[2].splitlines()
    assert section[0].endswith(".")


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for path in (*EXAMPLES.glob("*.yaml"), *REFERENCE):
        copy = tmp_path / "config" / path.relative_to(EXAMPLES)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / "docs").mkdir()
    main(tmp_path / "docs", tmp_path / "config")
    schemas = {f"{name}.schema.json" for name in ("sidecar", "sts", "platform")}
    assert {file.name for file in (tmp_path / "docs").iterdir()} == {"configuration.md", "profiles.md"}
    assert {file.name for file in (tmp_path / "config").glob("*.json")} == schemas


def test_every_section_says_what_it_is() -> None:
    assert [name for name, schema in SECTIONS.items() if not schema.get("description")] == []


def test_every_setting_has_a_meaning() -> None:
    assert [key for key in KEYS if not SECTIONS[key[0]]["properties"][key[1]]["description"]] == []


def test_every_setting_is_read() -> None:
    read = {"from", "version", "on_failure", "note"}  # the last three are for people, or have one value
    for path in (ROOT / "sidecar").rglob("*.py"):
        if "config" in path.parts or path.name.endswith("settings.py"):
            code = path.read_text(encoding="utf-8")
            read.update(node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute))
            module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for name in re.findall(r"scalars\(\w+, (\w+)\)|(\w+)\(\*\*[\w.]+\.model_dump\(\)\)", code):
                read.update(field.name for field in fields(getattr(module, "".join(name))))
    whole = "Federate"  # of these sections a provider is told every key
    never = [f"{name}.{key}" for name, key in KEYS if key not in read and not name.startswith(whole)]
    assert not never, f"no code reads {never}: the settings that the builder makes need a field of that name"


def test_the_page_tells_which_settings_of_the_inbound_side_need_a_restart() -> None:
    told = PAGES["configuration.md"].partition("These need a restart:")[2].partition("\n## ")[0]
    keys = {"one_subject": "subjects_at_once"}
    reloaded = {"agent", "agent_grpc"}
    listeners = {"listen", "connections", "limits", "upstream_limits"}
    names = {keys.get(field.name, field.name) for field in fields(InboundSettings)} - reloaded - listeners
    silent = sorted(name for name in names if f"`inbound.{name}`" not in told)
    assert silent == [], "name them in _RULES of sidecar/config/docs.py, or let `needs_restart` leave them out"


def test_every_link_leads_to_a_section() -> None:
    page = PAGES["configuration.md"]
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    links = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert links <= headings
    assert len(links) > 20


def test_the_table_at_the_top_leads_to_each_section_in_the_order_of_the_page() -> None:
    page = PAGES["configuration.md"]
    contents = page.partition("| file | key | sections | explained in |")[2].partition("\n\n")[0]
    assert not re.findall(r"^(.*)\|  \|$", contents, re.MULTILINE), (
        "name a page in _EXPLAINED of sidecar/config/docs.py"
    )
    listed = list(dict.fromkeys(re.findall(r"\]\(#([a-z0-9-]+)\)", contents)))
    headings = [line.lower().replace(" ", "-") for line in re.findall(r"^###+ (.+)$", page, re.MULTILINE)]
    assert listed == headings


@pytest.mark.parametrize("words", [[], ["--sts"]], ids=["sidecar", "sts"])
def test_check_prints_the_schema(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main_command(["check", "--schema", *words]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema(sts=bool(words))


# Examples


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_a_file_that_examples_come_from_can_be_used(path: Path) -> None:
    if path.stem == "platform":
        load_platform(path)
    elif path.stem == "sts":
        load_sts(path, {})
    else:
        ceiling = path.with_name("platform.yaml") if path.stem == "outside" else None  # only there it is needed
        load_sidecar(path, {}, ceiling, clock=lambda: start_of("2026-12-01"))


def test_every_setting_has_an_example_that_reads_back_as_it_is() -> None:
    assert [key for key in KEYS if key not in FOUND] == []
    assert [key for key in KEYS if parse_document(as_yaml(FOUND[key]), name="example") != FOUND[key]] == []


# The kind of a value by the end of its key: what must be true of its text, and of each item.
KINDS = {
    "socket": r"/\S+\.sock",
    "workload_api": r"unix:///\S+\.sock",
    "ca": r"/\S+\.(pem|crt)",
    "certificate": r"/\S+\.(pem|crt)",
    "bundle": r"/\S+\.(pem|crt)",
    "spill": r"/[^.]+",
    "directory": r"/[^.]+",
    "listen": r"[0-9.]+:[0-9]+",
    "jwks": r"https://\S+/(jwks|keys)",
    "token_endpoint": r"https://\S+",
    "token_endpoints": r"https://\S+/token",
    "redirect_uris": r"https://\S+/callback",
    "replicas": r"https://[^/]+",
    "authorization_endpoint": r"https://\S+/authorize",
    "upstream": r"https://[^/]+",
    "peer": r"spiffe://\S+",
    "peers": r"spiffe://\S+",
    "spiffe_id": r"spiffe://\S+",
    "credential_file": r"/var/run/keys/\S+",
    "until": r"\d{4}-\d\d-\d\d",
    "observe_until": r"\d{4}-\d\d-\d\d|true",
}


def of_another_kind(found: Mapping[tuple[str, str], object]) -> list[str]:
    """Return the examples whose text is not of the kind that their key says."""
    return [
        f"{section}.{key}: {as_yaml(one)}"
        for section, key in KEYS
        if key in KINDS
        for value in [found[section, key]]
        for one in (value if isinstance(value, list) else [value])
        if not re.fullmatch(KINDS[key], as_yaml(one))
    ]


def test_an_example_is_of_the_kind_that_its_key_says() -> None:
    assert of_another_kind(FOUND) == []
    assert {key for _, key in KEYS} > KINDS.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("AdminSection", "socket"), "/etc/sidecar/ca.pem"),
        (("OutboundRouteSection", "upstream"), "https://sts.example/jwks"),
        (("InboundSection", "listen"), "https://sts.example/jwks"),
    ],
)
def test_an_example_of_another_kind_is_found(key: tuple[str, str], value: str) -> None:
    assert of_another_kind({**FOUND, key: value}) == [f"{'.'.join(key)}: {value}"]


def test_no_example_of_the_schema_is_one_of_another_kind() -> None:
    """An example of a type stands at all its keys, in editors too: so a type of many kinds has none."""
    text = json.dumps([json_schema(), json_schema(sts=True), json_schema(platform=True)])
    examples = set(re.findall(r'"examples": \["([^"]*)"\]', text))
    assert examples == {
        "127.0.0.1:7080", "2027-03-31", "GET", "acme.example", "api.example:443", "api.openai.com", "docs.read", "/crm",
        "https://hooks.acme.example/a2a", "phr", "search", "/search", "spiffe://acme.example/agent/planner",
        "unix:///spiffe-workload-api/spire-agent.sock",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("true", '"true"'),
        ("5", '"5"'),
        (20.0, "20"),
        (0.5, "0.5"),
        ("*", '"*"'),
        ("a: b", '"a: b"'),
        ("acme:", '"acme:"'),
        ("", '""'),
        ({"https://a.example": ["b", None]}, "{https://a.example: [b, null]}"),
    ],
)
def test_a_value_is_written_as_yaml(value: object, text: str) -> None:
    assert as_yaml(value) == text
    assert parse_document(text, name="value") == value


@pytest.mark.parametrize(
    ("section", "key", "default"),
    [
        ("SidecarFile", "records", {}),
        ("SidecarFile", "probe", {"listen": "127.0.0.1:7090"}),
        ("SidecarFile", "inbound", None),
        ("InboundSection", "agent_key", None),
        ("InboundRouteSection", "pass_token", False),
    ],
)
def test_a_default_is_what_a_file_could_say(section: str, key: str, default: object) -> None:
    assert default_of(SECTIONS[section]["properties"][key]) == default


@pytest.mark.parametrize(
    ("key", "unit"),
    [("idle_s", "seconds"), ("per_s", "per second"), ("max_head_bytes", "bytes"), ("retries", ""),
     ("max_permits_mib", "MiB"), ("min_rate", "bytes per second"), ("unproven_per_s", "per second")],
)  # fmt: skip
def test_a_number_has_the_unit_that_its_key_ends_with(key: str, unit: str) -> None:
    assert unit_of(key) == unit


# Variables


def variables_of_the_page() -> Iterator[str]:
    """Yield the variables that the page names: the beginnings that a section states, with each of its keys."""
    for section in re.split(r"^#{2,4} ", PAGES["configuration.md"], flags=re.MULTILINE):
        begins = re.findall(r"`(SIDECAR__\w*__)…`", section.partition("\n|")[0])
        if section.startswith(("A sidecar\n", "A token service\n")):
            begins = ["SIDECAR__"]
        for key in re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE):
            yield from (begin + key.upper() for begin in begins)


VARIABLES = set(variables_of_the_page())
SETTABLE = {place.settable for file in ("SidecarFile", "StsFile") for place, *_ in places(schemas()[file])}


def leaves(document: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield what a variable can set: each value that is no mapping, and each mapping whose keys are none of ours."""
    if isinstance(document, dict) and all(".".join((*path, key)) in SETTABLE for key in document):
        for key, value in document.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, document


@pytest.mark.parametrize("name", ["agent", "entry", "id-jag", "sts"])
def test_a_whole_file_can_be_given_by_the_variables_of_the_page(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / "reference" / f"{name}.yaml").read_text()
    variables = {
        f"SIDECAR__{'__'.join(path).upper()}": as_yaml(value) for path, value in leaves(parse_document(text, name=name))
    }
    assert len(variables) > 10
    shutil.copytree(EXAMPLES / "reference" / "deny", tmp_path / "deny")  # included
    for variable in variables:
        assert variable in VARIABLES
    assert problems(tmp_path, {}, sts=name == "sts", **variables) == []
    del variables[next(one for one in variables if one.startswith("SIDECAR__ISSUER"))]
    assert problems(tmp_path, {}, sts=name == "sts", **variables) != []


def test_a_key_below_a_list_and_a_platform_s_have_no_variable() -> None:
    named = {place.variable for file in ("SidecarFile", "StsFile") for place, *_ in places(schemas()[file])}
    assert named == VARIABLES
    assert "SIDECAR__INBOUND__ROUTES" in VARIABLES
    assert not [one for one in VARIABLES if one.startswith("SIDECAR__INBOUND__ROUTES__")]
    assert "SIDECAR__PASSTHROUGH" not in VARIABLES


# Every generated page

PYTHON = re.compile(
    r"\b(?:None|True|False)\b|<class|\w*PosixPath|<\w+\.\w+: |frozenset\(|dict_(?:keys|values)|\bdatetime\."
)


def test_the_generated_pages_are_found() -> None:
    assert {path.name for path in GENERATED} >= {
        "README.md", "cli.md", "configuration.md", "metrics.md", "profiles.md", "reasons.md", "records.md",
        "selectors.md",
    }  # fmt: skip


@pytest.mark.parametrize("page", GENERATED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_generated_page_shows_a_value_as_python_does(page: Path) -> None:
    assert [line for line in page.read_text(encoding="utf-8").splitlines() if PYTHON.search(line)] == []


@pytest.mark.parametrize(
    "line", ["| `None` |", "default True", "PosixPath('/a')", "<class 'str'>", "<Kind.TXN: 'txn'>"]
)
def test_a_value_of_python_would_be_seen(line: str) -> None:
    assert PYTHON.search(line)
    assert not PYTHON.search("| `null` | none, true or false |")
