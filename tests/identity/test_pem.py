from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.identity.pem import PemError, certificates_of, may_be_unfinished, private_key_of
from tests.identity.shapes import authority, leaf
from tests.identity.supplies import pem_key_of, pem_of

ROOT, OTHER = authority("root a"), authority("root b")
OWN = leaf(ROOT)
PEM, KEY = pem_of(OWN, ROOT), pem_key_of(OWN)
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL


def test_certificates_come_in_the_order_of_the_text() -> None:
    assert certificates_of(PEM) == (OWN.der, ROOT.der)


def test_text_between_certificates_is_none_of_them() -> None:
    assert certificates_of(b"# our root\n" + pem_of(ROOT) + b"\nsubject=CN = x\n" + pem_of(OTHER)) == (
        ROOT.der,
        OTHER.der,
    )


@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_no_text_is_no_certificates(text: bytes) -> None:
    assert certificates_of(text) == ()


BROKEN = {
    "words": b"words",
    "junk in the frame": b"-----BEGIN CERTIFICATE-----\nanVuaw==\n-----END CERTIFICATE-----\n",
    "cut in the second": PEM[:-40],
    "cut after the second's first line": pem_of(OWN) + b"-----BEGIN CERTIFICATE-----\n",
    "a key beside": PEM + KEY,
    "a key alone": KEY,
    "a request": PEM.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_text_of_anything_but_whole_certificates_is_refused(case: str) -> None:
    with pytest.raises(PemError):
        certificates_of(BROKEN[case])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, len(PEM) - 2))
def test_half_a_file_never_passes_for_another_than_the_certificates_before_it(cut: int) -> None:
    try:
        found = certificates_of(PEM[:cut])
    except PemError:
        return
    assert found == (OWN.der, ROOT.der)[: len(found)]
    assert PEM[:cut].count(b"-----BEGIN ") == len(found)


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL])
def test_a_private_key_comes_as_pkcs8_whatever_its_form(form: serialization.PrivateFormat) -> None:
    text = OWN.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert private_key_of(text) == OWN.key_der


ENCRYPTED = OWN.key.private_bytes(serialization.Encoding.PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
NO_KEYS = {
    "empty": b"",
    "words": b"words",
    "a certificate": pem_of(OWN),
    "two": KEY + pem_key_of(ROOT),
    "cut": KEY[:-30],
    "encrypted": ENCRYPTED,
    "a certificate beside": KEY + pem_of(OWN),
}


@pytest.mark.parametrize("case", NO_KEYS)
def test_a_text_of_anything_but_one_plain_private_key_is_refused(case: str) -> None:
    with pytest.raises(PemError) as refused:
        private_key_of(NO_KEYS[case])
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("text", [PEM, KEY], ids=["certificates", "key"])
def test_a_text_may_be_unfinished_wherever_it_is_cut_but_between_blocks(text: bytes) -> None:
    whole = text.rstrip()
    ends = [len(pem_of(OWN).rstrip()), len(pem_of(OWN)), len(whole)] if text is PEM else [len(whole)]
    for length in range(len(whole) + 1):
        assert (length, may_be_unfinished(whole[:length])) == (length, length not in ends)


def test_what_is_no_pem_or_wrong_within_whole_blocks_is_finished() -> None:
    for text in (b"words", PEM + b"words", KEY.replace(b"PRIVATE KEY", b"NOTHING"), PEM[:60] + b"!" + PEM[61:]):
        assert not may_be_unfinished(text)
