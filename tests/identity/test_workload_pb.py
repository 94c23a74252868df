from __future__ import annotations

import pytest

from sidecar.identity import workload_pb

# Encoded by hand from workload.proto's field numbers: tag byte = number << 3 | 2 for length-delimited fields.
WIRE = {
    "svid": (
        workload_pb.X509SVID(spiffe_id="a", x509_svid=b"b", x509_svid_key=b"c", bundle=b"d", hint="e"),
        b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x01d\x2a\x01e",
    ),
    "svids": (workload_pb.X509SVIDResponse(svids=[workload_pb.X509SVID(spiffe_id="a")]), b"\x0a\x03\x0a\x01a"),
    "crl": (workload_pb.X509SVIDResponse(crl=[b"x"]), b"\x12\x01x"),
    "federated bundles": (
        workload_pb.X509SVIDResponse(federated_bundles={"a": b"b"}),
        b"\x1a\x06\x0a\x01a\x12\x01b",
    ),
    "x509 bundles": (workload_pb.X509BundlesResponse(bundles={"a": b"b"}), b"\x12\x06\x0a\x01a\x12\x01b"),
    "jwt request": (workload_pb.JWTSVIDRequest(audience=["a", "b"], spiffe_id="c"), b"\x0a\x01a\x0a\x01b\x12\x01c"),
    "jwt response": (
        workload_pb.JWTSVIDResponse(svids=[workload_pb.JWTSVID(spiffe_id="a", svid="b", hint="c")]),
        b"\x0a\x09\x0a\x01a\x12\x01b\x1a\x01c",
    ),
    "jwt bundles": (workload_pb.JWTBundlesResponse(bundles={"a": b"b"}), b"\x0a\x06\x0a\x01a\x12\x01b"),
    "validate request": (workload_pb.ValidateJWTSVIDRequest(audience="a", svid="b"), b"\x0a\x01a\x12\x01b"),
    "validate response": (workload_pb.ValidateJWTSVIDResponse(spiffe_id="a"), b"\x0a\x01a"),
}


@pytest.mark.parametrize("case", WIRE)
def test_messages_have_the_field_numbers_of_the_standard(case: str) -> None:
    message, wire = WIRE[case]
    assert message.SerializeToString() == wire
    assert type(message).FromString(wire) == message


def test_the_claims_of_a_validated_svid_are_a_struct() -> None:
    response = workload_pb.ValidateJWTSVIDResponse()
    response.claims.update({"sub": "spiffe://a.test/x", "exp": 1})
    assert response.claims["sub"] == "spiffe://a.test/x"
