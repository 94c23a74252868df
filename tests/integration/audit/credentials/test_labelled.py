"""The labelled set: how many planted credentials are found as their kind, and that no output shows a part of one."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from delegation_audit.credentials import command
from delegation_audit.credentials.detector import Kingfisher
from delegation_audit.credentials.examine import Result, examine
from delegation_audit.credentials.judge import canonical
from delegation_audit.credentials.kinds import KINDS, Kind
from delegation_audit.credentials.secrecy import SPAN, Fingerprints
from sidecar.cli import main
from tests.audit.credentials.labelled import NOW, Planted, make
from tests.audit.credentials.written import written

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
FILES: Final = 150
LEAST: Final = 0.98


class Labelled(NamedTuple):
    folder: Path
    planted: list[Planted]


@pytest.fixture(scope="module", params=[17, 4242])
def labelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    folder = tmp_path_factory.mktemp("set")
    return Labelled(folder, make(folder, request.param, FILES))


@pytest.fixture(scope="module")
def result(labelled: Labelled, kingfisher: Kingfisher) -> Result:
    return examine([str(labelled.folder)], kingfisher, now=NOW)


def places(result: Result) -> Counter[tuple[str, str]]:
    """Count the credentials of each file and kind."""
    return Counter(
        (file, one.kind.value) for one in result.credentials for file in {place.file for place in one.places}
    )


def test_precision_and_recall_of_each_kind(labelled: Labelled, result: Result) -> None:
    planted = Counter((file, kind) for file, kind, _ in {(one.file, one.kind, one.secret) for one in labelled.planted})
    found = places(result)
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for file, kind in planted | found:
        right[kind] += min(planted[file, kind], found[file, kind])
        wrong[kind] += max(0, found[file, kind] - planted[file, kind])
        missed[kind] += max(0, planted[file, kind] - found[file, kind])
    for kind in right:
        assert right[kind] / (right[kind] + wrong[kind] or 1) >= LEAST, f"precision of {kind}"
        assert right[kind] / (right[kind] + missed[kind] or 1) >= LEAST, f"recall of {kind}"


def test_every_kind_of_a_file_is_in_the_set(labelled: Labelled) -> None:
    of_records = {Kind.CLIENT_WITHOUT_DELEGATION, Kind.STATIC_KEY_IN_USE, Kind.RANDOM_TEXT}
    assert {one.kind for one in labelled.planted} == {kind.value for kind in KINDS if kind not in of_records}
    assert sum(1 for path in labelled.folder.rglob("*") if path.is_file()) == FILES


@pytest.mark.parametrize("number", range(len(written(random.Random()))))
def test_a_file_as_people_write_it(number: int, kingfisher: Kingfisher, tmp_path: Path) -> None:
    file = written(random.Random(number))[number]
    path = tmp_path / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file.text)
    fingerprints = Fingerprints(b"k" * 32)
    found = examine([str(tmp_path)], kingfisher, fingerprints=fingerprints, now=NOW).credentials
    expected = {(kind, fingerprints.compute(canonical(secret))) for kind, secret in file.secrets}
    assert {(one.kind.value, one.fingerprint) for one in found} == expected, file.path


def test_dates_of_exports_are_ages(result: Result) -> None:
    ages = defaultdict(set)
    for one in result.credentials:
        ages[one.kind].add(one.age_days)
    assert 800 in ages[Kind.OAUTH_CLIENT_SECRET]
    assert 500 in ages[Kind.OAUTH_CLIENT_SECRET]
    assert 20 in ages[Kind.CLIENT_CERTIFICATE]


def _drawn(secret: str) -> str:
    """Return a secret without the words that all of its kind begin and end with."""
    return re.sub(r"github_pat_|sk-proj-|sk-ant-api03-|-----[A-Z ]+-----", "", secret)


def spans(planted: list[Planted]) -> set[str]:
    secrets = {_drawn(one.secret) for one in planted if len(one.secret) > 15}  # the short ones are names of clients
    return {secret[at : at + SPAN] for secret in secrets for at in range(len(secret) - SPAN + 1)}


@pytest.mark.parametrize(
    "form", [[], ["--json"], ["--sarif"], ["--history"], ["--ignore", "SECRET"], ["--key", "SECRET"]]
)
def test_no_output_holds_six_characters_of_a_secret(
    labelled: Labelled,
    kingfisher: Kingfisher,
    form: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "Kingfisher", lambda: kingfisher)
    words = ["api-kez" if word == "SECRET" else word for word in form]
    main(["audit", "credentials", *words, str(labelled.folder)])
    output = "".join(capfd.readouterr())
    shown = {output[at : at + SPAN] for at in range(len(output) - SPAN + 1)}
    assert output
    assert not shown & spans(labelled.planted)


def test_an_error_within_a_reader_shows_no_secret(
    labelled: Labelled, kingfisher: Kingfisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import traceback

    from delegation_audit.credentials import examine as module

    def fail(*_: object, **__: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(module, "rank", fail)
    with pytest.raises(ValueError, match="broken") as caught:
        examine([str(labelled.folder)], kingfisher, now=NOW)
    text = "".join(traceback.format_exception(caught.value))
    assert not {text[at : at + SPAN] for at in range(len(text) - SPAN + 1)} & spans(labelled.planted)


def test_the_same_set_gives_the_same_result(labelled: Labelled, result: Result, kingfisher: Kingfisher) -> None:
    again = examine([str(labelled.folder)], kingfisher, now=NOW)
    assert [one.places for one in again.credentials] == [one.places for one in result.credentials] or (
        json.dumps(sorted(map(str, places(again)))) == json.dumps(sorted(map(str, places(result))))
    )
