from __future__ import annotations

from pathlib import PurePath

import pytest

from delegation_audit.credentials.codeowners import MAX_RULES, CodeOwners


def find(pattern: str, path: str, file: str = "repo/CODEOWNERS") -> bool:
    owners = CodeOwners()
    owners.add(PurePath(file), f"{pattern} @acme/crm\n")
    return owners.find(PurePath(path)) == {"@acme/crm"}


@pytest.mark.parametrize(
    ("pattern", "match", "other"),
    [
        ("*", "repo/a/b.env", "elsewhere/b.env"),
        ("*.env", "repo/a/b.env", "repo/a/b.py"),
        ("/agents/crm", "repo/agents/crm/a/.env", "repo/x/agents/crm/.env"),
        ("agents/", "repo/x/agents/crm/.env", "repo/x/agents"),
        ("/agents/", "repo/agents/crm/.env", "repo/x/agents/.env"),
        ("/agents/*", "repo/agents/.env", "repo/agents/crm/.env"),
        ("/agents/**/*.env", "repo/agents/x/y/b.env", "repo/agents/x/y/b.py"),
        ("**/crm", "repo/x/crm/.env", "repo/x/crm2/.env"),
        ("/a[1]", "repo/a[1]/.env", "repo/a1/.env"),
    ],
)
def test_a_pattern_matches_as_its_hosts_say(pattern: str, match: str, other: str) -> None:
    assert find(pattern, match)
    assert not find(pattern, other)


@pytest.mark.parametrize("folder", [".github", ".gitlab", "docs"])
def test_a_file_in_a_folder_of_the_host_is_about_the_repository(folder: str) -> None:
    assert find("/agents/", "repo/agents/.env", f"repo/{folder}/CODEOWNERS")
    assert not find("/agents/", "repo/agents/.env", "repo/other/CODEOWNERS")


def test_the_last_match_decides_and_may_name_nobody() -> None:
    owners = CodeOwners()
    owners.add(
        PurePath("CODEOWNERS"),
        "# all\n* @acme/all\n[Section]\n!x @acme/no\n/crm/ @acme/crm ann@acme.example no\n/crm/open\n",
    )
    assert owners.find(PurePath("a")) == {"@acme/all"}
    assert owners.find(PurePath("crm/a")) == {"@acme/crm", "ann@acme.example"}
    assert owners.find(PurePath("crm/open/a")) == set()


def test_hostile_rules_are_bounded() -> None:
    owners = CodeOwners()
    owners.add(
        PurePath("CODEOWNERS"),
        "*a" * 200 + "b @x\n" + "x" * 600 + " @x\n" + "/**" * 100 + "/q @x\n" + "y @y\n" * (MAX_RULES - 2),
    )
    assert owners.find(PurePath("/".join(["a" * 200] * 30))) == set()
    assert owners.find(PurePath("y")) == {"@y"}


def test_a_file_with_too_many_rules_names_nobody() -> None:
    """Its last rules, which were not read, might name somebody else."""
    owners = CodeOwners()
    owners.add(PurePath("CODEOWNERS"), "y @y\n" * (MAX_RULES + 1))
    assert owners.find(PurePath("y")) == set()
