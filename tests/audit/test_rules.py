import pytest

from delegation_audit.rules import Confidence, Place, Rule, Severity, fingerprint_of, unknown_rules, worst_first

KEY = Rule(
    id="long-lived-key",
    title="A key without end",
    severity=Severity.HIGH,
    why="Whoever reads it is the agent.",
    fix="Replace it by an exchange.",
    standard="RFC 9700 section 2.5",
)
TAG = Rule(id="tag", title="A tag", severity=Severity.LOW, why="It moves.", fix="Pin the digest.", standard="SPIRE")


def test_severities_are_ranked_from_critical_down() -> None:
    assert sorted(Severity, key=lambda one: -one.rank) == ["low", "medium", "high", "critical"]
    assert Severity.CRITICAL.rank == 0


def test_a_weakness_has_the_severity_and_fix_of_its_rule_unless_told_otherwise() -> None:
    place = Place(file="web.yaml", line=3, object="Deployment shop/web")
    by_rule = KEY.report(place, "web has a key")
    assert (by_rule.severity, by_rule.fix, by_rule.confidence) == (Severity.HIGH, KEY.fix, Confidence.HIGH)
    assert dict(by_rule.facts) == {}
    other = KEY.report(place, "web has a key", severity=Severity.CRITICAL, fix="Revoke it.", confidence=Confidence.LOW)
    assert (other.severity, other.fix, other.confidence) == (Severity.CRITICAL, "Revoke it.", Confidence.LOW)


def test_a_fingerprint_outlives_a_moved_line_and_tells_objects_rules_and_files_apart() -> None:
    first = KEY.report(Place(file="a.yaml", line=3, object="web"), "a key").fingerprint
    assert first == KEY.report(Place(file="a.yaml", line=9, object="web"), "the same key").fingerprint
    others = [
        KEY.report(Place(file="a.yaml", line=3, object="db"), "a key"),
        KEY.report(Place(file="b.yaml", line=3, object="web"), "a key"),
        TAG.report(Place(file="a.yaml", line=3, object="web"), "a key"),
        KEY.report(Place(file="a.yaml", line=3), "a key"),
        KEY.report(Place(file="a.yaml", line=4), "a key"),
    ]
    assert len({first, *(one.fingerprint for one in others)}) == 6


def test_the_parts_of_a_fingerprint_do_not_run_into_each_other() -> None:
    assert fingerprint_of("a", "bc") != fingerprint_of("ab", "c")
    assert fingerprint_of("a", "") != fingerprint_of("a")
    assert len(fingerprint_of("\udc80")) == 32


def test_a_place_reads_like_a_compiler_message() -> None:
    assert str(Place(file="a.yaml")) == "a.yaml"
    assert str(Place(file="a.yaml", line=3)) == "a.yaml:3"
    assert str(Place(file="a.yaml", line=3, column=7, object="web")) == "a.yaml:3:7"


def test_the_worst_come_first_and_equal_ones_in_the_order_of_their_places() -> None:
    late, early = (KEY.report(Place(file="a", line=line), "x") for line in (9, 2))
    low = TAG.report(Place(file="a", line=1), "x")
    critical = TAG.report(Place(file="z"), "x", severity=Severity.CRITICAL)
    assert worst_first([low, late, early, critical]) == [critical, early, late, low]


@pytest.mark.parametrize(
    ("ignored", "complaint"),
    [
        ([], None),
        (["tag", "long-lived-key"], None),
        (["tga"], "--ignore: tga is not a rule; the rules are long-lived-key, tag"),
        (["b", "a", "tag"], "--ignore: a, b are not rules; the rules are long-lived-key, tag"),
    ],
)
def test_a_word_that_names_no_rule_is_refused_with_the_words_that_do(ignored: list[str], complaint: str | None) -> None:
    assert unknown_rules(ignored, (KEY, TAG)) == complaint
