"""The map: everybody once, in the column of their depth; refused and unknown calls differ from others."""

from __future__ import annotations

from delegation_audit.report.build import stories_of
from delegation_audit.report.hop_map import BOX_WIDTH, MOST_ARROWS, draw, short
from tests.audit.report.evidence import document, hop


def test_each_workload_is_one_box_and_the_person_is_the_first() -> None:
    ((story,), _) = stories_of(document())
    drawn = draw(story)
    assert [(box.label, box.person) for box in drawn.boxes] == [
        ("alice", True),
        ("agent/front", False),
        ("agent/planner", False),
        ("agent/writer", False),
        ("agent/crm", False),
    ]
    assert len({box.x for box in drawn.boxes}) == 5
    assert all(box.x >= 0 and box.x + BOX_WIDTH <= drawn.width and box.y <= drawn.height for box in drawn.boxes)
    assert [arrow.state for arrow in drawn.arrows] == ["allowed", "allowed", "allowed", "refused"]
    assert drawn.arrows[0].label == "on behalf of"


def test_calls_between_two_workloads_are_counted_on_one_arrow() -> None:
    ((story,), _) = stories_of(document(hops=[hop(0, "front", "crm"), hop(0, "front", "crm"), hop(0, "crm", "front")]))
    drawn = draw(story)
    assert [arrow.label for arrow in drawn.arrows] == ["on behalf of", "POST /crm (2x)", "POST /front"]


def test_no_label_covers_another() -> None:
    others = [
        hop(0, "front", name, decision=decision) for name in ("a", "b", "c") for decision in ("allow", "deny", None)
    ]
    ((story,), _) = stories_of(document(hops=others))
    drawn = draw(story)
    labels = [(arrow.label_x, arrow.label_y) for arrow in drawn.arrows]
    for number, (x, y) in enumerate(labels):
        assert not [1 for other in labels[:number] if abs(other[0] - x) < 100 and abs(other[1] - y) < 26]
    assert max(y for _, y in labels) < drawn.height


def test_a_call_without_an_operation_has_no_label() -> None:
    ((story,), _) = stories_of(document(hops=[hop(0, "front", "crm", method=None, path=None)]))
    assert [arrow.label for arrow in draw(story).arrows] == ["on behalf of", ""]


def test_a_crowd_of_arrows_is_cut_and_told() -> None:
    hops = [hop(0, "front", f"tool-{number}") for number in range(MOST_ARROWS + 5)]
    ((story,), _) = stories_of(document(hops=hops))
    assert draw(story).left_out == 6  # one more is the person's


def test_a_chain_of_any_depth_has_a_map_that_fits() -> None:
    deep = [hop(depth, f"a{depth}", f"a{depth + 1}") for depth in range(MOST_ARROWS - 1)]
    far = [hop(5000, f"far{number}", "crm") for number in range(1000)]
    ((story,), _) = stories_of(document(hops=deep))
    lawful = draw(story)
    assert (len(lawful.boxes), len(lawful.arrows), lawful.left_out) == (61, MOST_ARROWS, 0)
    ((story,), _) = stories_of(document(hops=[*far, *deep]))
    drawn = draw(story)
    assert (len(drawn.boxes), len(drawn.arrows)) == (61, MOST_ARROWS)
    assert drawn.left_out == 1000
    assert drawn.width < lawful.width


def test_a_chain_without_hops_has_the_person_alone() -> None:
    ((story,), _) = stories_of(document(hops=[]))
    assert [box.label for box in draw(story).boxes] == ["alice"]


def test_long_names_are_shortened_at_their_beginning() -> None:
    assert short("spiffe://acme.example/agent/front") == "agent/front"
    assert short("spiffe://acme.test") == "spiffe://acme.test"
    assert short("x" * 30) == "…" + "x" * 19
