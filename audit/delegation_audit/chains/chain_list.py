"""Table of chains: one row each, with its verdict and the option that selects it."""

from __future__ import annotations

import shlex
from typing import Final

from delegation_audit.chains.examination import Audit
from delegation_audit.chains.hops import Chain
from delegation_core.console.counts import pluralise
from delegation_core.console.output import print_line, print_table

_PREFIX: Final = "jti:"  # of the name of a chain without a txn, which is named after its first token


def show_list(audit: Audit) -> None:
    """Print the chains of an audit as a table, worst first."""
    of = f" of {audit.all_chains}" if audit.all_chains > len(audit.chains) else ""
    print_line(f"{pluralise(len(audit.chains), 'chain')}{of}, worst first:", style="bold")
    chains = {chain.name: chain for chain in audit.chains}
    print_table(
        ("chain", "for", "since", "depth", "hops", "verdict", "chosen by"),
        (_row(chains[name], audit) for name in audit.verdicts if name in chains),
    )
    print_line()


def _row(chain: Chain, audit: Audit) -> tuple[object, ...]:
    whose = ", ".join(subject for _, subject in chain.subjects) or "unknown"
    since = min((hop.ts for _, hop in chain.hops if hop.ts), default="")[:19] or None
    return chain.name, whose, since, depth_of(chain), len(chain.hops), _verdict(chain, audit), _option(chain.name)


def depth_of(chain: Chain) -> int:
    """Return the depth of the deepest hop, counted from 1."""
    return max((depth for depth, _ in chain.hops), default=-1) + 1


def is_broken(chain: Chain, audit: Audit) -> bool:
    """Return True if a finding breaks the chain."""
    return audit.verdicts[chain.name][1] > 0


def _verdict(chain: Chain, audit: Audit) -> str:
    found, breaking = audit.verdicts[chain.name]
    if is_broken(chain, audit):
        return f"broken ({pluralise(breaking, 'finding')})"
    return f"whole, {found} refused or observed" if found else "whole"


def _option(name: str) -> str:
    """Return the command-line option that selects a chain."""
    if name.startswith(_PREFIX):
        return f"--jti={shlex.quote(name.removeprefix(_PREFIX))}"
    return f"--txn={shlex.quote(name)}"  # with =, since an id may begin with a dash
