"""The verdict table: every cell, from the evidence alone."""

from __future__ import annotations

from sidecar.doctor.attempts import Examination
from sidecar.doctor.cells import Cell
from sidecar.doctor.verdicts_actor import actor_verdicts
from sidecar.doctor.verdicts_chain import chain_verdicts
from sidecar.doctor.verdicts_limits import limit_verdicts
from sidecar.doctor.verdicts_protocol import protocol_verdicts


def verdicts_of(found: Examination) -> list[Cell]:
    """Return the cells in the order of the page."""
    return [*actor_verdicts(found), *chain_verdicts(found), *limit_verdicts(found), *protocol_verdicts(found)]
