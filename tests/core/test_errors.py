"""Every reason has exactly one answer, and an error reveals no more than it should."""

from __future__ import annotations

import re

import pytest

from delegation_core.errors import ConfigError, Denied, Problem, Reason, SidecarError, Unavailable

NO_HTTP = {"no_client_cert", "bad_svid", "untrusted_chain", "unknown_trust_domain", "wrong_bundle", "svid_expired"}
NO_HTTP |= {"tls_version", "peer_gone", "peer_slow", "frame_flood", "upstream_aborted"}
UNAUTHORIZED = {"malformed_token", "duplicate_claim", "token_type", "alg_not_allowed", "unknown_key", "bad_signature"}
UNAUTHORIZED |= {"wrong_issuer", "wrong_audience", "token_expired", "token_not_yet_valid", "token_too_large"}
UNAUTHORIZED |= {"act_missing", "act_malformed", "act_too_deep", "cnf_mismatch"}
FORBIDDEN = {"actor_mismatch", "policy_denied", "issuer_not_for_route", "scope_above_ceiling", "txn_token_refused"}
FORBIDDEN |= {"no_request_context", "call_not_allowed", "calls_exhausted", "target_denied", "not_an_entry"}
FORBIDDEN |= {"own_authority_refused", "exchange_denied"}
BAD_GATEWAY = {"sts_error", "sts_bad_response", "sts_no_act", "sts_actor_mismatch", "sts_subject_mismatch"}
BAD_GATEWAY |= {"sts_chain_broken", "sts_scope_widened", "sts_audience_mismatch", "sts_lifetime", "sts_issuer"}
BAD_GATEWAY |= {"sts_signature", "sts_token_type", "sts_redirect", "sts_too_large", "sts_identity"}
BAD_GATEWAY |= {"upstream_bad_response", "upstream_identity", "internal"}
UNAVAILABLE = {"sts_unavailable", "keys_unavailable", "not_ready", "overloaded", "subject_busy", "draining"}
UNAVAILABLE |= {"audit_unavailable", "upstream_unreachable"}

STATUSES = {
    **dict.fromkeys(NO_HTTP, 0),
    **dict.fromkeys({"bad_request", "ambiguous_framing", "header_malformed", "path_refused", "upgrade_refused"}, 400),
    **dict.fromkeys(UNAUTHORIZED | {"no_token", "step_up_required"}, 401),
    **dict.fromkeys(FORBIDDEN | {"insufficient_scope"}, 403),
    "no_route": 404,
    "method_refused": 405,
    "timeout": 408,
    "too_large": 413,
    "uri_too_long": 414,
    "head_too_large": 431,
    "http_version": 505,
    **dict.fromkeys(BAD_GATEWAY, 502),
    **dict.fromkeys(UNAVAILABLE, 503),
    **dict.fromkeys({"sts_timeout", "upstream_timeout"}, 504),
}


@pytest.mark.parametrize(("code", "status"), sorted(STATUSES.items()))
def test_a_code_is_answered_with_its_status(code: str, status: int) -> None:
    assert Reason(code).answer.status == status


@pytest.mark.parametrize("code", sorted(UNAUTHORIZED))
def test_a_bad_token_is_told_as_invalid_token(code: str) -> None:
    assert Reason(code).answer.error == "invalid_token"


@pytest.mark.parametrize("code", sorted(FORBIDDEN | {"no_token"}))
def test_only_a_small_scope_or_a_bad_token_has_an_error_code(code: str) -> None:
    assert Reason(code).answer.error is None


def test_a_small_scope_is_told_as_insufficient_scope() -> None:
    assert Reason.INSUFFICIENT_SCOPE.answer.error == "insufficient_scope"


@pytest.mark.parametrize("reason", [Reason.BAD_REQUEST, Reason.AMBIGUOUS_FRAMING, Reason.HEADER_MALFORMED])
def test_a_connection_whose_framing_is_in_doubt_is_closed(reason: Reason) -> None:
    assert reason.answer.close
    assert reason.answer.error == "invalid_request"


def test_every_temporary_refusal_and_no_other_says_when_to_come_back() -> None:
    waits = {reason for reason in Reason if reason.answer.retry_after_s is not None}

    assert waits == {reason for reason in Reason if reason.answer.status == 503}


@pytest.mark.parametrize("reason", list(Reason))
def test_codes_are_lower_case_words(reason: Reason) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", reason.value)
    assert reason.name == reason.value.upper()


@pytest.mark.parametrize("reason", list(Reason))
def test_texts_fit_a_quoted_header_parameter(reason: Reason) -> None:
    # RFC 6750 section 3: printable ASCII without quotation mark and backslash.
    assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", reason.answer.text)


def test_the_detail_never_reaches_the_answer() -> None:
    error = Denied(Reason.WRONG_AUDIENCE, "expected spiffe://acme.example/tool/crm")

    assert "crm" not in error.answer.text
    assert str(error) == "wrong_audience: expected spiffe://acme.example/tool/crm"


def test_an_error_without_detail_is_its_code() -> None:
    assert str(Unavailable(Reason.NOT_READY)) == "not_ready"


@pytest.mark.parametrize("kind", [Denied, Unavailable])
def test_both_outcomes_are_caught_as_one(kind: type[SidecarError]) -> None:
    assert issubclass(kind, SidecarError)


def test_a_settings_error_lists_every_problem_with_field_and_fix() -> None:
    problems = [Problem("inbound.listen", "no port", "write host:port"), Problem("issuers", "empty", "name one")]

    error = ConfigError(problems)

    assert error.problems == tuple(problems)
    assert str(error) == "inbound.listen: no port; write host:port\nissuers: empty; name one"
