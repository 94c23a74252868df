"""The trade with AWS: its form, its answer in XML, and the Bedrock API key as AWS's own library signs it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

import pytest

from delegation_core.errors import Unavailable
from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.aws import bedrock_key, trade
from sidecar.exchange.federation.trade import Traded

NOW: Final = 1_800_000_000.0  # 2027-01-15T08:00:00Z
KEY: Final = FederatedKey(
    provider="aws",
    audience="sts.amazonaws.com",
    endpoint="https://sts.eu-central-1.amazonaws.com/",
    terms=(("region", "eu-central-1"), ("role_arn", "arn:aws:iam::1:role/agent"), ("session_name", "writer")),
)
CREDENTIALS: Final = {
    "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "secret/Example+Key", "SessionToken": "session/Token+x==",
    "Expiration": "2027-01-15T08:30:00Z",
}  # fmt: skip
# Made by botocore's SigV4QueryAuth of the same credentials, time, region and 1800 s, as AWS's token generator uses it.
SIGNED: Final = (
    "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2FsbFdpdGhCZWFyZXJUb2tlbiZYLUFtei1BbGdvcml0"
    "aG09QVdTNC1ITUFDLVNIQTI1NiZYLUFtei1DcmVkZW50aWFsPUFTSUFFWEFNUExFJTJGMjAyNzAxMTUlMkZldS1jZW50cmFsLTEl"
    "MkZiZWRyb2NrJTJGYXdzNF9yZXF1ZXN0JlgtQW16LURhdGU9MjAyNzAxMTVUMDgwMDAwWiZYLUFtei1FeHBpcmVzPTE4MDAmWC1B"
    "bXotU2lnbmVkSGVhZGVycz1ob3N0JlgtQW16LVNlY3VyaXR5LVRva2VuPXNlc3Npb24lMkZUb2tlbiUyQnglM0QlM0QmWC1BbXot"
    "U2lnbmF0dXJlPTFkMjM0NmUzMmJmN2EzZDI1NDZmOTdlODg4ZjZhNzg3ZWFhYTZlZWY4NzJjMThiNjE1NDcwNzAxNGU4ZDYzMGQm"
    "VmVyc2lvbj0x"
)


def answer(**changes: str) -> bytes:
    members = "".join(f"<{name}>{text}</{name}>" for name, text in {**CREDENTIALS, **changes}.items())
    return (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<AssumeRoleWithWebIdentityResult><Credentials>{members}</Credentials>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    ).encode()


def test_a_trade_asks_for_a_role_and_gets_a_key_that_aws_would_sign() -> None:
    steps = trade(KEY, "svid", NOW)
    ask = next(steps)
    assert (ask.url, ask.content_type) == (KEY.endpoint, "application/x-www-form-urlencoded")
    assert ask.headers == {"Accept": "text/xml"}
    assert dict(parse_qsl(ask.body.decode())) == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::1:role/agent",
        "RoleSessionName": "writer",
        "DurationSeconds": "3600",
        "WebIdentityToken": "svid",
    }
    with pytest.raises(StopIteration) as end:
        steps.send(answer())
    assert end.value.value == Traded(SIGNED, 1800)


def test_a_key_is_of_one_region_and_one_time() -> None:
    texts = (CREDENTIALS["AccessKeyId"], CREDENTIALS["SecretAccessKey"], CREDENTIALS["SessionToken"])
    assert bedrock_key(*texts, "eu-central-1", now=NOW, life_s=1800) == SIGNED
    assert bedrock_key(*texts, "us-east-1", now=NOW, life_s=1800) != SIGNED
    assert bedrock_key(*texts, "eu-central-1", now=NOW + 1, life_s=1800) != SIGNED


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(answer(SessionToken=""), id="no-session"),
        pytest.param(answer(Expiration=""), id="no-expiry"),
        pytest.param(answer(Expiration="2027-01-15T08:00:00Z"), id="expired"),
        pytest.param(answer(Expiration="2027-01-15T08:30:00"), id="no-zone"),
        pytest.param(answer().replace(b"2011-06-15", b"2010-01-01"), id="another-version"),
        pytest.param(b"<!DOCTYPE x>" + answer(), id="document-type"),
        pytest.param(b'<?xml version="1.0" encoding="big5"?>' + answer().partition(b"?>")[2], id="another-encoding"),
        pytest.param(b'<?xml version="1.0" encoding="zlib"?><a/>', id="no-encoding-at-all"),
        pytest.param('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x><x/>'.encode("utf-16"), id="utf-16"),
        pytest.param(b"<html>sign in", id="html"),
        pytest.param(b"{}", id="json"),
    ],
)
def test_an_answer_without_whole_credentials_is_refused(said: bytes) -> None:
    steps = trade(KEY, "svid", NOW)
    next(steps)
    with pytest.raises(Unavailable):
        steps.send(said)
