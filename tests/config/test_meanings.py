import pytest

from sidecar.config.docs import meaning, sections
from sidecar.config.meanings import MEANINGS

KEYS = [(name, key) for name, schema in sections().items() for key in schema["properties"]]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=".".join)
def test_every_setting_has_a_meaning(section: str, key: str) -> None:
    assert meaning(section, key)


def test_every_meaning_is_of_a_setting() -> None:
    keys = {key for _, key in KEYS}
    named = {name: name.rpartition(".")[2] for name in MEANINGS}
    assert [name for name, key in named.items() if key not in keys] == []
    sections_named = {name.partition(".")[0] for name in MEANINGS if "." in name}
    assert sections_named - {"KeySource"} <= set(sections())
