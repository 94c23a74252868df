from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest

from delegation_audit.credentials import fields, plain
from delegation_audit.credentials.detector import DetectorError
from delegation_audit.credentials.examine import NOT_TO_ITS_END, UNJUDGED, Result, examine
from delegation_audit.credentials.fields import Exposure
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.secrecy import MASK, Fingerprints
from delegation_audit.rules import Severity
from delegation_core.records import unpacking
from tests.audit.credentials.drawn import GITHUB, HUGGING_FACE, KEY, PASSWORD, PEM
from tests.audit.credentials.test_recorded import RECORD
from tests.fakes.detector import FakeDetector

NOW = 1_790_000_000


def run(folder: Path, **more: object) -> Result:
    return examine([str(folder)], FakeDetector(), now=NOW, **more)  # type: ignore[arg-type]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_one_secret_in_three_files_is_one_credential_with_three_places(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}", b__c_yaml=f"x: 1\nkey: {GITHUB}\n", d_py=f"# {GITHUB}\n")
    (found,) = run(tmp_path).credentials
    assert found.kind is Kind.GIT_HOST_TOKEN
    assert [(Path(place.file).name, place.line) for place in found.places] == [("a.env", 1), ("d.py", 1), ("c.yaml", 2)]


def test_two_secrets_are_two_credentials(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\nHF_TOKEN={HUGGING_FACE}\n")
    assert len(run(tmp_path).credentials) == 2


def test_a_secrets_owner_is_the_workload_that_uses_it_in_another_file(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}}
    data = {"data": {"TOKEN": base64.b64encode(GITHUB.encode()).decode()}}
    write(tmp_path, a_json=json.dumps({**secret, **data}))
    assert run(tmp_path).credentials[0].owners == ("Secret shop/keys",)
    spec = {"containers": [{"envFrom": [{"secretRef": {"name": "keys"}}]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crm", "namespace": "shop"}, "spec": spec}
    write(tmp_path, z_json=json.dumps(pod))
    assert run(tmp_path).credentials[0].owners == ("Pod shop/crm",)


def test_the_env_file_of_a_service_belongs_to_it(tmp_path: Path) -> None:
    write(tmp_path, crm_env=f"TOKEN={GITHUB}\n", compose_yaml="services: {crm: {image: a, env_file: crm.env}}")
    assert run(tmp_path).credentials[0].owners == ("service crm",)


def test_one_key_in_two_forms_is_one_credential_of_the_kind_that_reaches_further(tmp_path: Path) -> None:
    write(tmp_path, a_pem=PEM)
    assert [one.kind for one in run(tmp_path).credentials] == [Kind.PRIVATE_KEY]
    write(tmp_path, b_json=json.dumps({"type": "service_account", "private_key": PEM, "client_email": "a@b"}))
    (found,) = run(tmp_path).credentials
    assert (found.kind, len(found.places)) == (Kind.GCP_SERVICE_ACCOUNT_KEY, 2)


def test_text_that_only_looks_random_is_unsure_and_not_counted(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=f"seed: {KEY}{PASSWORD}\n")
    result = run(tmp_path)
    assert result.summary == (0, "No static credential was found in 1 file.")
    assert [one.kind for one in result.unsure] == [Kind.RANDOM_TEXT]


def test_an_ignored_kind_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\nCRM_API_KEY={KEY}\n")
    assert [one.kind for one in run(tmp_path, ignored=["api-key"]).credentials] == [Kind.GIT_HOST_TOKEN]


def test_the_highest_rank_comes_first(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"CRM_API_KEY={KEY}\n", b_env=f"TOKEN={GITHUB}\n")
    found = run(tmp_path).credentials
    assert [one.kind for one in found] == [Kind.GIT_HOST_TOKEN, Kind.API_KEY]
    assert found[0].rank > found[1].rank
    assert found[0].severity is Severity.HIGH


def test_a_name_that_repeats_the_secret_is_masked(tmp_path: Path) -> None:
    folder = tmp_path / PASSWORD
    write(folder, a_yaml=json.dumps({PASSWORD: {"db_password": PASSWORD}}))
    (found,) = run(tmp_path).credentials
    (place,) = found.places
    assert PASSWORD not in place.file + str(place.object) + str(found.owners)
    assert MASK in place.file


def test_a_folder_or_an_object_that_repeats_a_secret_of_another_file_is_masked(tmp_path: Path) -> None:
    write(tmp_path, zz_env=f"GITHUB_TOKEN={GITHUB}\n")
    folder = tmp_path / GITHUB
    folder.mkdir()
    (folder / "a.env").write_text(f"CRM_API_KEY={KEY}\n")  # read before the file that tells the secret
    result = run(tmp_path)
    assert {one.kind for one in result.credentials} == {Kind.GIT_HOST_TOKEN, Kind.API_KEY}
    assert GITHUB not in repr(result)
    (lawful,) = (one for one in result.credentials if one.kind is Kind.GIT_HOST_TOKEN)
    assert lawful.places[0].file == str(tmp_path / "zz.env")
    (masked,) = (one for one in result.credentials if one.kind is Kind.API_KEY)
    assert masked.places[0].file == str(tmp_path / MASK / "a.env")


def test_one_key_makes_two_runs_comparable(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\n")
    one, other = (run(tmp_path, fingerprints=Fingerprints(b"k" * 32)).credentials[0].fingerprint for _ in range(2))
    assert one == other != run(tmp_path).credentials[0].fingerprint


def test_a_stream_of_records_is_read_by_its_lines(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(RECORD) + "\n")
    (found,) = run(tmp_path).credentials
    assert (found.kind, found.exposures, found.age_days) == (Kind.CLIENT_WITHOUT_DELEGATION, (Exposure.RECORD,), 1)


def test_a_file_on_which_the_detector_gives_up_is_counted(tmp_path: Path) -> None:
    class Tired(FakeDetector):
        def find(self, text: str):  # type: ignore[no-untyped-def]
            raise DetectorError("gave up")

    write(tmp_path, a_env=f"TOKEN={GITHUB}\n")
    result = examine([str(tmp_path)], Tired(), now=NOW)
    assert (result.credentials, result.skipped) == ((), {"the detector gave up": 1})


def test_the_summary_is_a_number_and_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\nHF_TOKEN={HUGGING_FACE}\n", b_env=f"TOKEN={GITHUB}\n")
    number, sentence = run(tmp_path).summary
    assert number == 2
    assert sentence.startswith("2 static credentials lie in 3 places")


def test_each_place_is_a_weakness_with_the_credentials_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\n", b_env=f"TOKEN={GITHUB}\n")
    result = run(tmp_path)
    weaknesses = result.weaknesses()
    assert len(weaknesses) == 2
    assert {one.fingerprint for one in weaknesses} == {result.credentials[0].fingerprint}
    assert weaknesses[0].facts["provider"] == "GitHub"


CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n"


@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("a.env", "", "K{}=word{}\n"),
        ("a.yaml", "", "k{}: word{}\n"),
        ("a.py", "", "key_{} = 'word{}'\n"),
        ("b.yaml", CONFIG_MAP, "  k{}: word{}\n"),
    ],
)
def test_a_file_with_more_values_than_are_judged_is_told(
    name: str, head: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pads a file may not hide a key behind the padding and have it called clean."""
    monkeypatch.setattr(fields, "MAX_FIELDS", 30)
    monkeypatch.setattr(plain, "MAX_FIELDS", 30)
    for count, told in ((15, {}), (60, {UNJUDGED: 1})):
        (tmp_path / name).write_text(head + "".join(line.format(number, number) for number in range(count)))
        result = run(tmp_path)
        assert (result.skipped, result.unread) == (told, len(told))


@pytest.mark.parametrize(
    "line",
    [
        *("redis-server --requirepass {}", "requirepass {}", "masterauth {}", "redis-cli config set requirepass {}"),
        *("REDISCLI_AUTH={} redis-cli ping", "redis-cli -a {} ping"),
        *("PGPASSWORD={} psql -h db", "MYSQL_PWD={} mysqldump", "mysql -uroot -p{} crm", "mysql --password={}"),
        *("mongosh -u admin -p {}", "mongodump --password {}", "docker login -u ci -p {} a.internal"),
        *("skopeo copy --src-creds ci:{} a b", "sqlcmd -U sa -P {}", "curl -u ci:{} a", "rabbitmqctl add_user ci {}"),
    ],
)
def test_a_password_of_a_command_line_is_found_and_a_reference_is_none(line: str, tmp_path: Path) -> None:
    for name in ("a.sh", "a.conf"):
        (tmp_path / name).write_text("\n" + line.format(PASSWORD) + "\n")
    (found,) = run(tmp_path).credentials
    assert found.kind in (Kind.PASSWORD, Kind.DATABASE_PASSWORD)
    assert [place.line for place in found.places] == [2, 2]
    assert PASSWORD[:6] not in repr(found)
    for other in ("${PASSWORD}", "$PASSWORD", "changeme", "your-password", "<password>"):
        for name in ("a.sh", "a.conf"):
            (tmp_path / name).write_text("\n" + line.format(other) + "\n")
        assert run(tmp_path).credentials == ()


@pytest.mark.parametrize(
    "line",
    [
        *("docker compose -p crm2agents2027x up", "docker run -u agent20271203x image", "mkdir -p crm2agents2027x"),
        *("psql -p 5432 -h db", "redis-server --port 63790000", "mysql -P 33060000", "ssh -p 22000022 crm2agents2027x"),
    ],
)
def test_a_short_flag_that_is_no_password_is_none(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(line + "\n")
    assert run(tmp_path).credentials == ()


def test_the_password_of_a_redis_user_is_found(tmp_path: Path) -> None:
    for secret, count in ((PASSWORD, 1), ("${PASSWORD}", 0), ("<password>", 0)):
        (tmp_path / "users.conf").write_text(f"user agent on >{secret} ~* +@all\n")
        assert len(run(tmp_path).credentials) == count


@pytest.mark.parametrize("command", ["redis-server --requirepass {}", '["redis-server", "--requirepass", "{}"]'])
def test_a_password_of_a_services_command_belongs_to_the_service(command: str, tmp_path: Path) -> None:
    text = f"services:\n  cache:\n    image: redis\n    command: {command}\n"
    (tmp_path / "compose.yaml").write_text(text.format(PASSWORD))
    (found,) = run(tmp_path).credentials
    assert (found.owners, [place.line for place in found.places]) == (("service cache",), [4])
    (tmp_path / "compose.yaml").write_text(text.format("${REDIS_PASSWORD}"))
    assert run(tmp_path).credentials == ()


def test_a_services_env_file_is_its_own_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, crm__a_env=f"TOKEN={GITHUB}\n", compose_yaml="services: {crm: {image: a, env_file: ./crm/a.env}}")
    monkeypatch.chdir(tmp_path)
    assert run(Path()).credentials[0].owners == ("service crm",)


@pytest.mark.parametrize(
    ("files", "owners"),
    [
        ({}, ("folder crm",)),
        ({"CODEOWNERS": "/crm/ @acme/crm\n"}, ("@acme/crm",)),
        ({"CODEOWNERS": "/other/ @acme/crm\n"}, ("folder crm",)),
        ({"CODEOWNERS": "/crm/\n"}, ("folder crm",)),
        ({"CODEOWNERS": "/crm/ @acme/crm\n", "compose.yaml": "services: {a: {build: ./crm}}"}, ("service a",)),
        ({"compose.yaml": "services: {a: {build: {context: crm}}, b: {build: ./crm}}"}, ("service a", "service b")),
        ({"compose.yaml": "services: {a: {build: ./other}}"}, ("folder crm",)),
        ({"compose.yaml": "services: {a: {build: 'https://crm.internal/crm'}}"}, ("folder crm",)),
    ],
)
def test_an_agent_or_a_team_owns_a_key_before_its_folder(
    files: dict[str, str], owners: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, crm__a_env=f"TOKEN={GITHUB}\n")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert run(tmp_path).credentials[0].owners == owners


@pytest.mark.parametrize(
    ("label", "owner"), [("acme.example/team", "team crm"), ("owner", "team crm"), ("tier", "Secret keys")]
)
def test_a_label_names_the_team_of_a_secret_that_no_workload_uses(label: str, owner: str, tmp_path: Path) -> None:
    meta = {"name": "keys", "labels": {label: "crm"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"TOKEN": GITHUB}}
    write(tmp_path, a_json=json.dumps(secret))
    assert run(tmp_path).credentials[0].owners == (owner,)
    spec = {"containers": [{"envFrom": [{"secretRef": {"name": "keys"}}]}]}
    write(tmp_path, b_json=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crm"}, "spec": spec}))
    assert run(tmp_path).credentials[0].owners == ("Pod crm",)


def test_an_owner_that_repeats_a_secret_is_masked(tmp_path: Path) -> None:
    write(tmp_path, crm__a_env=f"TOKEN={GITHUB}\n")
    (tmp_path / "CODEOWNERS").write_text(f"* @{GITHUB}\n")
    assert run(tmp_path).credentials[0].owners == (MASK,)


def test_a_stream_beyond_the_limit_of_its_ratio_is_counted_and_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, a_env=f"TOKEN={GITHUB}\n")
    record = json.dumps(RECORD).encode() + b"\n"
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(record + b"\n" * (4 << 20)))
    assert (run(tmp_path).unread, len(run(tmp_path).credentials)) == (0, 2)  # the record names a client
    monkeypatch.setattr(unpacking, "FREE_BYTES", 2 << 20)
    found = run(tmp_path)
    assert (found.unread, found.skipped, len(found.credentials)) == (1, {NOT_TO_ITS_END: 1}, 1)
