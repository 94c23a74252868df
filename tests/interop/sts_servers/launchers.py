"""All token-exchange servers that we did not write, by name. STS_SERVERS selects some, separated by spaces."""

from __future__ import annotations

import os
from typing import Final

from tests.interop.sts_servers import launch_idpyoidc, launch_keycloak, launch_spring, launch_zitadel
from tests.interop.sts_servers.server import Launcher

_ALL: Final = (
    launch_idpyoidc.LAUNCHER,
    launch_zitadel.EXAMPLE,
    launch_zitadel.OWN,
    launch_zitadel.LOOSE,
    launch_spring.STOCK,
    launch_spring.CUSTOMIZED,
    launch_keycloak.LAUNCHER,
)
LAUNCHERS: Final[dict[str, Launcher]] = {launcher.name: launcher for launcher in _ALL}


def reason_to_skip(launcher: Launcher) -> str | None:
    """Return the reason to skip a server here; None: it can run.

    Raises:
        AssertionError: it was selected, under CI=true, and this machine lacks something.
    """
    chosen = os.environ.get("STS_SERVERS", "").split()
    if chosen and launcher.name not in chosen:
        return f"{launcher.name}: not chosen by STS_SERVERS"
    lacking = launcher.lacking()
    if lacking is None:
        return None
    assert not chosen or "CI" not in os.environ, lacking
    return f"{launcher.name}: {lacking}"
