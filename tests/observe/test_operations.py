import asyncio
import io
import logging
import secrets
import ssl

import pytest

from sidecar.observe.operations import INSTEAD, OneLine, harmless, report_loop_error
from tests.fakes.tokens import TokenMint

HANDLE = secrets.token_urlsafe(32)
TOKEN = TokenMint().mint()
KEY = f"-----BEGIN PRIVATE KEY-----\n{'MIGHAgEA' * 8}\n-----END PRIVATE KEY-----"

NOBODY_WAITS = "Future exception was never retrieved"
EXPECTED = {(MemoryError, "Fatal error on SSL protocol"): "WARNING", (ssl.SSLError, NOBODY_WAITS): "INFO"}


def logged(message: str, *arguments: object, **fields: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine())
    record = logging.getLogger("t").makeRecord("t", logging.WARNING, "f", 1, message, arguments, None, extra=fields)
    record.created = 0.0
    handler.handle(record)
    return stream.getvalue()


def test_a_state_is_one_line_of_a_constant_message_and_fields() -> None:
    line = logged("identity rotated", spiffe_id="spiffe://acme.example/a", generation=2, error=None)
    assert (
        line == "1970-01-01T00:00:00Z WARNING identity rotated spiffe_id=spiffe://acme.example/a generation=2 error=-\n"
    )


def test_a_value_can_start_no_line_and_end_no_quote() -> None:
    line = logged("lost", error='a\n1970 INFO ready x="y\u202e')
    assert line == '1970-01-01T00:00:00Z WARNING lost error="a\\\\u{a}1970 INFO ready x=\\"y\\\\u{202e}"\n'


@pytest.mark.parametrize("secret", [TOKEN, HANDLE, KEY], ids=["token", "handle", "key"])
def test_no_secret_is_in_it_wherever_it_is_written(secret: str) -> None:
    error = ValueError(f"cannot read {secret}")
    record = logging.LogRecord("t", logging.ERROR, "f", 1, "at %s", (secret,), (ValueError, error, None))
    record.error = f"before {secret} after"
    text = OneLine().format(record)
    pieces = [piece for line in secret.splitlines() for piece in line.split(".") if "-----" not in piece]
    assert pieces
    assert not [piece for piece in pieces if piece[:20] in text]
    assert text.startswith("20")
    assert all(line.startswith("    ") for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://acme.example/ns/production/sa/a-workload-with-quite-a-long-name-2-and-more",
        "https://sts.acme.example/realms/Mesh/protocol/openid-connect/certs",
        "an-issuer-whose-name-is-longer-than-forty-characters-2.acme.example",
    ],
)
def test_names_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text
    assert INSTEAD not in logged("x", name_=text)


async def reported(
    error: Exception, caplog: pytest.LogCaptureFixture, where: str = "Fatal error on SSL protocol"
) -> logging.LogRecord:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report_loop_error)
    with caplog.at_level(logging.INFO):
        loop.call_exception_handler({"message": where, "exception": error})
    (record,) = caplog.records
    return record


async def test_a_write_after_the_peers_reset_is_one_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    record = await reported(error, caplog)
    assert (record.levelname, record.exc_info) == ("INFO", None)


@pytest.mark.parametrize("where", ["Fatal error on SSL protocol", NOBODY_WAITS, "Task exception was never retrieved"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), ValueError("the handler is closed"), MemoryError(), FileNotFoundError(), ssl.SSLError()],
    ids=repr,
)
async def test_any_other_error_of_the_loop_keeps_its_traceback(
    error: Exception, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = await reported(error, caplog, where)
    if (type(error), where) in EXPECTED:
        assert (record.levelname, record.exc_info) == (EXPECTED[type(error), where], None)
        return
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
