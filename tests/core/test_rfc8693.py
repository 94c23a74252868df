from __future__ import annotations

from delegation_core import rfc8693


def test_token_types_are_those_of_the_standard() -> None:
    types = {name: value for name, value in vars(rfc8693).items() if name.startswith("TOKEN_TYPE_")}
    assert types == {
        "TOKEN_TYPE_ACCESS_TOKEN": "urn:ietf:params:oauth:token-type:access_token",
        "TOKEN_TYPE_ID_TOKEN": "urn:ietf:params:oauth:token-type:id_token",
        "TOKEN_TYPE_JWT": "urn:ietf:params:oauth:token-type:jwt",
        "TOKEN_TYPE_REFRESH_TOKEN": "urn:ietf:params:oauth:token-type:refresh_token",
    }


def test_every_listed_name_is_there() -> None:
    assert all(hasattr(rfc8693, name) for name in rfc8693.__all__)
