from __future__ import annotations

from sidecar.proxy.listening.rotation import Rotation


def test_each_member_has_its_turn_and_a_new_one_comes_last() -> None:
    rotation: Rotation[str] = Rotation()
    for member in "abcd":
        rotation.add(member)
    assert rotation.next(3) == ("a", "b", "c")
    rotation.add("e")
    assert rotation.next(3) == ("d", "a", "b")
    rotation.discard("c")
    rotation.discard("c")
    assert rotation.next(3) == ("e", "d", "a")


def test_a_look_is_at_each_member_once() -> None:
    rotation: Rotation[str] = Rotation()
    assert rotation.next(5) == ()
    rotation.add("a")
    rotation.add("b")
    assert (rotation.next(5), len(rotation)) == (("a", "b"), 2)
