"""Changes to record files are found and told with their place; whole files have no finding."""

from __future__ import annotations

import json
import random

import pytest

from delegation_core.checkpoint import Head
from sidecar.sts.keys import SigningKey
from tests.audit.verify.evidence import KEY, STS, Writer, chained_again, changed, kinds, verdict
from tests.fakes.tokens import ISSUER, NOW, PLANNER


@pytest.fixture
def writer() -> Writer:
    writer = Writer()
    writer.write(10)
    writer.checkpoint()  # the eleventh
    writer.write(5)
    return writer


def test_a_whole_stream_has_no_finding_and_is_proven_up_to_its_last_checkpoint(writer: Writer) -> None:
    found = verdict(writer.lines)
    assert found.findings == []
    (run,) = found.runs
    assert (run.records, run.first, run.last, run.countersigned, run.uncovered) == (16, 1, 16, (10, NOW), 6)


@pytest.mark.parametrize("field", [{"subject": "mallory"}, {"decision": "deny"}, {"ts": "2027-01-01T00:00:00.000000Z"}])
def test_a_changed_line_is_named(writer: Writer, field: dict[str, str]) -> None:
    lines = [*writer.lines]
    lines[12] = changed(lines[12], **field)
    (finding,) = verdict(lines).findings
    assert (finding.kind, finding.places) == ("changed", ("0:13",))
    assert "record 13 of" in finding.text


def test_the_first_line_may_not_claim_one_before_it(writer: Writer) -> None:
    lines = [changed(writer.lines[0], prev="0" * 64), *writer.lines[1:]]
    assert kinds(verdict(lines)) == ["changed", "changed"]


def test_a_removed_line_is_told_from_a_lost_one(writer: Writer) -> None:
    (finding,) = verdict([*writer.lines[:12], *writer.lines[14:]]).findings
    assert (finding.kind, finding.places) == ("removed", ("0:12", "0:13"))
    assert "records 13 to 14 of" in finding.text
    writer.lose(2)
    writer.write()
    (finding,) = verdict(writer.lines).findings
    assert (finding.kind, finding.places) == ("lost", ("0:16", "0:17"))


@pytest.mark.parametrize("at", [3, 15])
def test_a_second_line_of_a_number_is_told_from_the_one_of_the_chain(writer: Writer, at: int) -> None:
    forged = changed(writer.lines[at], subject="mallory")
    for lines in ([*writer.lines, forged], [*writer.lines[:at], forged, *writer.lines[at:]]):
        findings = [one for one in verdict(lines).findings if one.kind == "inserted"]
        (finding,) = findings
        if at == 3:  # its successor says which one is right; for the last line only the order does
            assert finding.places[0] == f"0:{lines.index(forged) + 1}"


def test_lines_in_another_order_are_found_and_break_nothing(writer: Writer) -> None:
    lines = [*writer.lines]
    lines[4], lines[5] = lines[5], lines[4]
    (finding,) = verdict(lines).findings
    assert (finding.kind, finding.places) == ("reordered", ("0:6",))


def test_a_repeated_line_is_found(writer: Writer) -> None:
    assert kinds(verdict([*writer.lines, writer.lines[3]])) == ["repeated", "reordered"]
    assert kinds(verdict(writer.lines, writer.lines[3:5])) == ["repeated", "repeated"]


def test_a_run_that_begins_late_is_found(writer: Writer) -> None:
    (finding,) = verdict(writer.lines[4:]).findings
    assert (finding.kind, finding.places) == ("begins_late", ("0:1",))


def test_a_chain_that_was_computed_again_contradicts_its_checkpoint(writer: Writer) -> None:
    lines = chained_again([changed(writer.lines[2], subject="mallory"), *writer.lines[3:]])
    lines = chained_again([*writer.lines[:2], changed(writer.lines[2], subject="mallory"), *writer.lines[3:]])
    found = verdict(lines)
    assert kinds(found) == ["false_checkpoint"]
    assert found.runs[0].countersigned is None
    assert kinds(verdict(chained_again(writer.lines))) == []  # nothing was changed: the same chain


def test_what_came_after_the_last_checkpoint_can_be_rewritten_and_that_is_told(writer: Writer) -> None:
    lines = chained_again([*writer.lines[:13], changed(writer.lines[13], subject="mallory"), *writer.lines[14:]])
    found = verdict(lines)
    assert found.findings == []
    assert found.runs[0].uncovered == 6


def test_the_token_services_records_tell_of_a_tail_or_a_run_that_is_gone(writer: Writer) -> None:
    text = writer.checkpoint()
    service = Writer("s1", STS)
    service.write(event="records.countersigned", peer=writer.workload, checkpoint=f"run=r1 {text}")
    assert kinds(verdict(writer.lines, service.lines)) == []
    cut = verdict(writer.lines[:12], service.lines)
    assert kinds(cut) == ["tail_removed"]
    assert "record 16 of run r1 was countersigned, and the last one here is 12" in cut.findings[0].text
    assert kinds(verdict(service.lines)) == ["run_missing"]


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"head": Head(run="r1", seq=16, hash="ab" * 32)}, "false_checkpoint"),
        ({"head": Head(run="r1", seq=17, hash="ab" * 32)}, "false_checkpoint"),
        ({"workload": PLANNER}, "false_checkpoint"),
        ({"key": SigningKey.generate()}, "unknown_key"),
    ],
    ids=["another-hash", "of-itself", "of-another-workload", "unknown-key"],
)
def test_a_checkpoint_that_does_not_hold_proves_nothing(writer: Writer, facts: dict[str, object], kind: str) -> None:
    writer.checkpoint(**facts)  # type: ignore[arg-type]
    found = verdict(writer.lines)
    assert kinds(found) == [kind]
    assert found.runs[0].countersigned == (10, NOW)  # the one before holds


def test_no_other_workload_can_have_a_rewritten_run_countersigned(writer: Writer) -> None:
    forged = Writer("r1", writer.workload)
    forged.write(4, subject="mallory")
    forged.workload = PLANNER  # its own identity, for which the token service signs any run's name
    forged.checkpoint()
    assert "two_workloads" in kinds(verdict(forged.lines))
    assert verdict(writer.lines).findings == []


def test_a_checkpoint_that_another_workload_got_does_not_accuse_a_run(writer: Writer) -> None:
    theirs = KEY.countersign(Head(run="r1", seq=3, hash="ab" * 32), issuer=ISSUER, workload=PLANNER, at=NOW)
    service = Writer("s1", STS)
    service.write(event="records.countersigned", peer=PLANNER, checkpoint=f"run=r1 {theirs.text()}")
    found = verdict(writer.lines, service.lines)
    assert kinds(found) == ["run_missing"]
    assert f"run r1 of {PLANNER}" in found.findings[0].text
    assert found.runs[0].countersigned == (10, NOW)


def test_a_countersigned_record_was_removed_although_the_chain_spans_its_gap(writer: Writer) -> None:
    text = writer.checkpoint()  # of record 16
    service = Writer("s1", STS)
    service.write(event="records.countersigned", peer=writer.workload, checkpoint=f"run=r1 {text}")
    writer.write(4)
    lines = chained_again([*writer.lines[:14], *writer.lines[18:]])
    assert kinds(verdict(lines)) == ["lost"]
    assert kinds(verdict(lines, service.lines)) == ["lost", "removed"]
    assert kinds(verdict(writer.lines, service.lines)) == []


def test_a_checkpoint_of_another_form_is_false(writer: Writer) -> None:
    writer.write(event="records.countersigned", checkpoint="iss=x")
    assert kinds(verdict(writer.lines)) == ["false_checkpoint"]


def test_without_keys_signatures_are_not_checked_and_hashes_are(writer: Writer) -> None:
    writer.checkpoint(SigningKey.generate())
    found = verdict(writer.lines, keys=None)
    assert (found.findings, found.signatures_checked) == ([], False)
    writer.checkpoint(head=Head(run="r1", seq=16, hash="ab" * 32))
    assert kinds(verdict(writer.lines, keys=None)) == ["false_checkpoint"]


def test_a_run_must_have_a_checkpoint_where_that_is_asked_for(writer: Writer) -> None:
    assert kinds(verdict(writer.lines, countersigned=True)) == []
    bare = Writer("r2")
    bare.write(3)
    assert kinds(verdict(bare.lines)) == []
    assert kinds(verdict(bare.lines, countersigned=True)) == ["not_countersigned"]


def test_records_without_hashes_are_told(writer: Writer) -> None:
    lines = [json.dumps({k: v for k, v in json.loads(line).items() if k != "prev"}).encode() for line in writer.lines]
    (finding,) = verdict(lines).findings
    assert (finding.kind, finding.places[:2]) == ("unchained", ("0:1", "0:2"))
    assert "removed" in kinds(verdict([*writer.lines[:4], lines[4], *writer.lines[5:]]))


def test_no_single_change_before_the_last_checkpoint_goes_unnoticed(writer: Writer) -> None:
    chance = random.Random(7)
    for _ in range(200):
        lines = [*writer.lines]
        at = chance.randrange(10)
        what = chance.choice(("byte", "drop", "swap", "copy"))
        if what == "byte":
            line = bytearray(lines[at])
            where = chance.randrange(len(line))
            line[where] = (line[where] + chance.randrange(1, 128)) % 128
            lines[at] = bytes(line)
            if json_equal(lines[at], writer.lines[at]):
                continue
        elif what == "drop":
            del lines[at]
        elif what == "swap":
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
        else:
            lines.insert(at, lines[at + 2])
        assert verdict(lines).findings, (what, at)


def json_equal(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_changed_records_that_are_not_neighbours_are_named_each(writer: Writer) -> None:
    lines = [*writer.lines]
    lines[2], lines[6] = changed(lines[2], subject="x"), changed(lines[6], subject="x")
    found = [one.text for one in verdict(lines).findings if one.kind == "changed"]
    assert [text.split(" of ")[0] for text in found] == ["record 3", "record 7"]
    del lines[4:6]  # 5 and 6; what 7 was written after is gone
    found = [one.text for one in verdict(lines).findings if one.kind == "changed"]
    assert [text.split(" of ")[0] for text in found] == ["record 3", "record 7"]


def test_a_countersigned_record_that_was_removed_is_one_finding(writer: Writer) -> None:
    assert kinds(verdict([*writer.lines[:9], *writer.lines[10:]])) == ["removed"]


def test_a_checkpoint_is_of_a_line_before_it(writer: Writer) -> None:
    ahead = Head(run="r1", seq=writer.head().seq + 1, hash="ab" * 32)
    writer.checkpoint(head=ahead)
    (finding,) = verdict(writer.lines).findings
    assert finding.kind == "false_checkpoint"
    assert "not written before it" in finding.text


def test_a_forged_checkpoint_of_a_run_that_is_not_here_does_not_tell_of_one(writer: Writer) -> None:
    service = Writer("s1", STS)
    text = writer.checkpoint(key=SigningKey.generate())
    service.write(event="records.countersigned", peer=writer.workload, checkpoint=f"run=r1 {text}")
    assert kinds(verdict(service.lines)) == ["unknown_key"]
    service.write(event="records.countersigned", peer=writer.workload, checkpoint=f"run=r1 {writer.checkpoint()}")
    assert kinds(verdict(service.lines)) == ["run_missing"]
