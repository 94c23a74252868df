"""The presets of issuer profiles."""

from __future__ import annotations

from delegation_core.profile_presets import PRESETS


def test_the_presets_are_known_by_their_names() -> None:
    assert PRESETS.keys() == {
        "sts", "actor-profile-01", "keycloak", "keycloak-26.7", "spring", "zitadel", "entra", "obo-draft-02",
        "oidc-id-token", "oidc-access-token",
    }  # fmt: skip
    assert all(name == preset.name for name, preset in PRESETS.items())


def test_the_presets_allow_one_algorithm_per_kind_of_key_and_padding() -> None:
    allowed = frozenset().union(*(preset.algorithms for preset in PRESETS.values()))

    assert allowed == {"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"}
