"""AWS's web identity federation, for Amazon Bedrock: a role's credentials, made into a short-term Bedrock API key.

Written from memory of "AssumeRoleWithWebIdentity" in the STS API reference (version 2011-06-15, answers in XML),
"Signature Version 4" for query strings, and AWS's published token generator for Bedrock; the current texts were not
available in November 2026. The signature was compared with botocore's. Bedrock accepts such a key as a bearer token;
other services require a signature over the whole body, which is not known for a stream.
"""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, urlencode

from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.trade import Steps, check_trade, form, seconds_to, trade_error

_HOST: Final = "bedrock.amazonaws.com"
_NAMESPACE: Final = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_EMPTY: Final = sha256(b"").hexdigest()
_LIFE_S: Final = 3600


def trade(key: FederatedKey, svid: str, now: float) -> Steps:
    """Trade a JWT-SVID for a Bedrock API key. Terms: the role's ARN, a name for its session, the region."""
    answer = yield form(
        key.endpoint,
        {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": key.term("role_arn") or "",
            "RoleSessionName": key.term("session_name") or "",
            "DurationSeconds": str(_LIFE_S),
            "WebIdentityToken": svid,
        },
        {"Accept": "text/xml"},
    )
    access_key, secret, session, expiration = _credentials_of(answer)
    life_s = min(_LIFE_S, seconds_to(expiration, now))
    return check_trade(
        bedrock_key(access_key, secret, session, key.term("region") or "", now=now, life_s=life_s), life_s
    )


def bedrock_key(access_key: str, secret: str, session: str, region: str, *, now: float, life_s: int) -> str:
    """Make the API key: a signed query string of one fixed action, in base64."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/bedrock/aws4_request"
    members = {
        "Action": "CallWithBearerToken",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(life_s),
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Security-Token": session,
    }
    canonical = urlencode(sorted(members.items()), quote_via=quote, safe="-_.~")
    request = "\n".join(("POST", "/", canonical, f"host:{_HOST}", "", "host", _EMPTY))
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, sha256(request.encode()).hexdigest()))
    signer = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        signer = hmac.digest(signer, part.encode(), "sha256")
    query = f"{urlencode(members, quote_via=quote, safe='-_.~')}&X-Amz-Signature={signer.hex()}&Version=1"
    return "bedrock-api-key-" + base64.b64encode(f"{_HOST}/?{query}".encode()).decode()


def _credentials_of(answer: bytes) -> tuple[str, str, str, str]:
    """Read the four texts of temporary credentials."""
    from xml.etree import ElementTree  # 0.7 MiB, which a process without such a route need not hold

    if b"<!" in answer or not answer.isascii():  # a document type is where XML's entities come from
        raise trade_error("the answer is not XML of the expected form")
    try:  # parsed as text, so that a declared encoding is ignored
        root = ElementTree.fromstring(answer.decode())  # noqa: S314 - without a document type nothing can be expanded
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise trade_error("the answer is not XML") from error
    result = f"{_NAMESPACE}AssumeRoleWithWebIdentityResult"
    found = root.findall(f"{result}/{_NAMESPACE}Credentials")
    if root.tag != f"{_NAMESPACE}AssumeRoleWithWebIdentityResponse" or len(found) != 1:
        raise trade_error("the answer holds no credentials")
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    texts = [found[0].findtext(f"{_NAMESPACE}{name}") or "" for name in names]
    if not all(texts):
        raise trade_error("the answer holds no whole credentials")
    return texts[0], texts[1], texts[2], texts[3]
