"""The act chain: outermost first, whole or refused (RFC 8693 section 4.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.act import MAX_ACT_DEPTH, Actor, parse_act
from delegation_core.errors import Denied, Reason
from tests.core.test_strict_json import JSON


def nested(*subjects: str) -> dict[str, object]:
    act: dict[str, object] = {}
    for subject in reversed(subjects):
        act = {"sub": subject, "act": act} if act else {"sub": subject}
    return act


MALFORMED = {
    "null": None,
    "a string": "spiffe://acme.example/agent/writer",
    "an array": [{"sub": "a"}],
    "true": True,
    "empty": {},
    "no sub": {"iss": "https://sts.acme.example"},
    "sub null": {"sub": None},
    "sub a number": {"sub": 1},
    "sub true": {"sub": True},
    "sub an array": {"sub": ["a"]},
    "sub an object": {"sub": {"sub": "a"}},
    "sub empty": {"sub": ""},
    "sub of 2049 bytes": {"sub": "a" * 2049},
    "sub of 2049 bytes in fewer characters": {"sub": "é" * 1024 + "a"},
    "sub with a line break": {"sub": "a\r\nb"},
    "sub that turns the writing direction": {"sub": "a\u202eb"},
    "iss a number": {"sub": "a", "iss": 1},
    "iss null": {"sub": "a", "iss": None},
    "client_id an object": {"sub": "a", "client_id": {}},
    "client_id empty": {"sub": "a", "client_id": ""},
    "another member of 2049 bytes": {"sub": "a", "sub_profile": "x" * 2049},
    "another member nested deeply": {"sub": "a", "cnf": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]},
    "prior actor null": {"sub": "a", "act": None},
    "prior actor a string": {"sub": "a", "act": "b"},
    "prior actor empty": {"sub": "a", "act": {}},
    "prior actor without sub": {"sub": "a", "act": {"iss": "b"}},
    "third actor malformed": {"sub": "a", "act": {"sub": "b", "act": []}},
}


def test_a_token_without_act_has_no_chain() -> None:
    assert parse_act({"sub": "user-4711"}) is None


def test_the_outermost_actor_is_the_current_one() -> None:
    chain = parse_act({"act": nested("writer", "planner", "front")})

    assert chain is not None
    assert chain.current == Actor("writer")
    assert chain.prior == (Actor("planner"), Actor("front"))
    assert chain.subjects == ("writer", "planner", "front")
    assert chain.depth == 3


def test_an_actor_keeps_what_identifies_it() -> None:
    act = {"sub": "uuid", "iss": "https://idp.example", "client_id": "writer", "sub_profile": "ai_agent"}
    chain = parse_act({"act": act})

    assert chain is not None
    assert chain.current == Actor("uuid", "https://idp.example", "writer", "ai_agent")


def test_the_chain_keeps_the_object_as_it_came() -> None:
    act = {"sub": "writer", "sub_profile": "ai_agent", "act": {"sub": "planner", "x": [1]}}

    chain = parse_act({"act": act})

    assert chain is not None
    assert chain.raw == act


def test_members_that_identify_nobody_have_no_effect() -> None:
    # RFC 8693 section 4.1: exp, nbf, aud ... inside act have no meaning and are ignored.
    chain = parse_act({"act": {"sub": "writer", "exp": 0, "aud": ["x"], "cnf": {"jwk": {}}}})

    assert chain is not None
    assert chain.actors == (Actor("writer"),)


@pytest.mark.parametrize("act", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_act_is_refused(act: object) -> None:
    with pytest.raises(Denied) as caught:
        parse_act({"act": act})

    assert caught.value.reason is Reason.ACT_MALFORMED


def test_the_longest_subject_is_accepted() -> None:
    chain = parse_act({"act": {"sub": "a" * 2048, "note": "n" * 2048}})

    assert chain is not None


@pytest.mark.parametrize("note", ["n" * 2049, "\u00fc" * 1025], ids=["a byte", "in two bytes each"])
def test_a_member_that_identifies_nobody_is_refused_above_the_limit(note: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_act({"act": {"sub": "writer", "note": note}})

    assert caught.value.reason is Reason.ACT_MALFORMED


def test_client_ids_are_those_of_the_actors_that_have_one() -> None:
    chain = parse_act(
        {"act": {"sub": "writer", "act": {"sub": "planner", "client_id": "app", "act": {"sub": "front"}}}}
    )

    assert chain is not None
    assert chain.client_ids == ("app",)


def test_the_deepest_chain_is_accepted_and_one_more_is_too_deep() -> None:
    subjects = [f"agent-{number}" for number in range(MAX_ACT_DEPTH + 1)]
    deepest = parse_act({"act": nested(*subjects[:MAX_ACT_DEPTH])})

    with pytest.raises(Denied) as caught:
        parse_act({"act": nested(*subjects)})

    assert deepest is not None
    assert deepest.depth == MAX_ACT_DEPTH
    assert caught.value.reason is Reason.ACT_TOO_DEEP


def test_the_depth_limit_is_the_callers() -> None:
    with pytest.raises(Denied) as caught:
        parse_act({"act": nested("writer", "planner")}, max_depth=1)

    assert caught.value.reason is Reason.ACT_TOO_DEEP


def test_a_chain_may_name_one_actor_twice() -> None:
    chain = parse_act({"act": nested("planner", "writer", "planner")})

    assert chain is not None
    assert chain.depth == 3


@given(JSON | st.fixed_dictionaries({"sub": JSON}, optional={"act": JSON, "iss": JSON, "client_id": JSON}))
def test_any_value_is_a_chain_or_a_refusal(act: object) -> None:
    try:
        chain = parse_act({"act": act})
    except Denied as error:
        outcome: object = error.reason
    else:
        outcome = chain and all(chain.subjects)
    assert outcome in {True, Reason.ACT_MALFORMED, Reason.ACT_TOO_DEEP}
