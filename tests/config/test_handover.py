import os
import pickle
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Problem, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.config import load_sidecar, load_sts
from sidecar.config.handover import HandoverError, decode, encode
from sidecar.config.loader import SettingsFiles
from tests.config.documents import EXAMPLES

_SIDECARS = [path for path in sorted(EXAMPLES.rglob("*.yaml")) if path.stem not in {"sts", "platform"}]


class _Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def test_settings_arrive_as_they_were_made() -> None:
    settings = load_sts(EXAMPLES / "sts.yaml", {})
    assert decode(encode(lambda: settings)) == settings


def test_enumerations_arrive_where_python_writes_them_as_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.0 to 3.11.3, and so Debian 12's, pickle a member as ``getattr(class, name)``."""
    monkeypatch.setattr(Enum, "__reduce_ex__", lambda self, _protocol: (getattr, (type(self), self.name)))
    arrived = decode(encode(lambda: [Reason.TOKEN_EXPIRED]))
    assert arrived == [Reason.TOKEN_EXPIRED]
    assert arrived[0] is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize("path", _SIDECARS, ids=lambda path: path.stem)
def test_the_settings_of_every_example_pass(path: Path) -> None:
    try:
        settings = load_sidecar(path, {})
    except ConfigError:
        pytest.skip("no settings of a sidecar, or they need files")
    assert decode(encode(lambda: settings)).issuers == settings.issuers


def test_problems_arrive_in_place_of_settings() -> None:
    problem = Problem("inbound", "is missing", "add it")

    def refuse() -> None:
        raise ConfigError([problem])

    with pytest.raises(ConfigError) as refused:
        decode(encode(refuse))
    assert refused.value.problems == (problem,)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"settings",
        pickle.dumps((_Calls(os.system, "true"), ())),
        pickle.dumps((_Calls(eval, "1"), ())),
        pickle.dumps((_Calls(getattr, "a", "upper"), ())),
        pickle.dumps((_Calls(load_sts, EXAMPLES / "sts.yaml", {}), ())),  # ours, but no class
        b"csidecar.config.loader\nSettingsFiles.load\n.",
        b"csidecar.config.handover\nio\n.",  # a module that one of ours has imported
        b"csidecar.config.loader\nPath\n.",  # a class from another module
        b"\x80\x04(csidecar.config.handover\n_Settings\n)t.",  # the reader itself
        b"csidecar.none\nNone\n.",  # a module that there is not
        pickle.dumps((_Calls(SpiffeId, 7), ())),  # a class that raises an error of its own
        pickle.dumps((None, ("a problem",))),
        pickle.dumps((None, True)),
        b"\x80\x05\x8a\x01",  # an integer without its bytes
        b"(" * 100_000 + b"t" * 100_000 + b".",  # deep nesting
        pickle.dumps(SpiffeId("spiffe://a.example/b")),  # no pair
        encode(lambda: SpiffeId("spiffe://a.example/b"))[:-9],
    ],
)
def test_an_answer_with_anything_but_settings_is_refused(answer: bytes) -> None:
    with pytest.raises(HandoverError):
        decode(answer)


@pytest.mark.parametrize(
    ("module", "name", "lawful"),
    [
        ("delegation_core.spiffe_id", "SpiffeId", True),
        ("pathlib", "PosixPath", True),
        ("pathlib", "os", False),
        ("pathlib", "PurePosixPath", False),
        ("sidecar.config.loader", "Path", False),
        ("sidecar.config.loader", "load_again", False),
        ("sidecar.config.handover", "pickle.Pickler", False),
        ("subprocess", "Popen", False),
        ("builtins", "dict", False),
    ],
)
def test_only_our_own_classes_and_paths_are_found(module: str, name: str, lawful: bool) -> None:
    """The rest of the answer is right."""
    answer = b"\x80\x04(" + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    answer += b"\x93)t."
    if lawful:
        assert isinstance(decode(answer), type)
    else:
        with pytest.raises(HandoverError):
            decode(answer)


_SETS: tuple[tuple[type, str, bytes], ...] = (
    (SettingsFiles, "load", b"csidecar.config.loader\nSettingsFiles\n"),
    (Path, "read_bytes", b"cpathlib\nPath\n"),
    (Reason, "shown", b"cdelegation_core.errors\nReason\n"),
)


@pytest.mark.parametrize(("kind", "name", "named"), _SETS, ids=lambda one: getattr(one, "__name__", None))
def test_an_answer_that_changes_a_class_is_refused_and_undone(kind: type, name: str, named: bytes) -> None:
    before = vars(kind).get(name)
    state = b"N}X" + len(name).to_bytes(4, "little") + name.encode() + b"cdelegation_core.errors\nProblem\ns\x86b"
    with pytest.raises(HandoverError):
        decode(b"\x80\x04(" + named + state + b")t.")
    assert vars(kind).get(name) is before


def test_an_answer_that_changes_a_member_is_refused_and_undone() -> None:
    state = b"}X\x07\x00\x00\x00_value_X\x01\x00\x00\x00xsb"
    made = b"cdelegation_core.errors\nReason\nX\x0d\x00\x00\x00token_expired\x85R"
    with pytest.raises(HandoverError):
        decode(b"\x80\x04(" + made + state + b")t.")
    assert Reason.TOKEN_EXPIRED.value == "token_expired"
