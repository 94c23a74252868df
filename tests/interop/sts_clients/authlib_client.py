"""One exchange with Authlib over TLS with an X.509-SVID; its endpoints come from the metadata (RFC 8414).

Runs in a Python of its own. It reads a question as JSON from standard input, and writes what the client says of the
answer. Python's TLS checks the chain; that the other end has the right SPIFFE ID it cannot be asked to check.
"""

from __future__ import annotations

import json
import ssl
import sys
from typing import Any, Final

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKENS: Final = ("subject_token", "subject_token_type", "actor_token", "actor_token_type")


def context(asked: dict[str, Any]) -> ssl.SSLContext:
    """Return the TLS settings: an SVID has a URI and no DNS name."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.check_hostname = False
    tls.load_verify_locations(asked["bundle"])
    tls.load_cert_chain(asked["certificate"], asked["key"])
    return tls


def exchange(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the members of the issued token, or the error."""
    with OAuth2Client(
        client_id=asked["client_id"], token_endpoint_auth_method="none", verify=context(asked), trust_env=False
    ) as client:
        parameters = {name: asked[name] for name in _TOKENS if asked[name]}
        parameters["scope"] = " ".join(asked["scope"])
        if asked["audience"]:
            (parameters["audience"],) = asked["audience"]  # a parameter has one value here
        found = f"{asked['issuer']}/.well-known/oauth-authorization-server"
        try:
            metadata = client.request("GET", found, withhold_token=True).json()
            answer = client.fetch_token(metadata["token_endpoint"], grant_type=_EXCHANGE, **parameters)
        except OAuthError as error:
            return {"error": error.error}
        except httpx2.HTTPError as error:
            return {"failed": str(error)}
    return {"access_token": answer["access_token"], "token_type": answer["token_type"]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(exchange(json.load(sys.stdin))))
