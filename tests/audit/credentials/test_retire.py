"""The settings that retire a credential are settings: the product's own loader accepts them beside an example's."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sidecar.audit.credentials.kinds import KINDS, Kind
from sidecar.audit.credentials.retire import settings_for
from sidecar.config import load_sidecar
from sidecar.errors import ConfigError
from tests.config.documents import EXAMPLES

WITH_SETTINGS = [kind for kind in KINDS if settings_for(kind) is not None]


def load(snippet: str, folder: Path) -> object:
    document = yaml.safe_load((EXAMPLES / "agent.yaml").read_text())
    document["inbound"]["routes"][0]["may_call"] = []
    document.update(yaml.safe_load(snippet))
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(document))
    return load_sidecar(file, {})


@pytest.mark.parametrize("kind", WITH_SETTINGS)
def test_the_settings_of_each_kind_load(kind: Kind, tmp_path: Path) -> None:
    snippet = settings_for(kind)
    assert snippet is not None
    assert load(snippet, tmp_path)


def test_the_same_settings_with_one_key_changed_are_refused(tmp_path: Path) -> None:
    snippet = settings_for(Kind.API_KEY)
    assert snippet is not None
    with pytest.raises(ConfigError):
        load(snippet.replace("audience:", "audiense:"), tmp_path)


def test_most_kinds_have_settings_and_every_kind_has_a_cure() -> None:
    assert len(WITH_SETTINGS) >= 12
    assert all(declared.rule.cure for declared in KINDS.values())


def test_a_route_is_named_after_the_provider() -> None:
    named = settings_for(Kind.MODEL_PROVIDER_KEY, "Anthropic")
    assert named is not None
    assert "name: anthropic" in named


def test_a_provider_that_is_no_name_is_not_written(tmp_path: Path) -> None:
    snippet = settings_for(Kind.SERVICE_TOKEN, "x\ny: {")
    assert snippet is not None
    assert load(snippet, tmp_path)
