import argparse
import io
import sys

import pytest

from delegation_core.console.output import add_formats, print_line, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_plain_and_aligned_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "long"), [("value", None), ("b", 7)])
    assert capsys.readouterr().out == "a      long\nvalue  -\nb      7\n"


def test_a_terminal_without_rich_gets_the_plain_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setitem(sys.modules, "rich", None)
    print_table(("a",), [("x\x1b[2J",)])
    print_line("y", style="bold")
    assert terminal.getvalue() == "a\nx\\u{1b}[2J\ny\n"


def test_a_terminal_gets_a_drawn_table_and_no_text_is_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(("a",), [("[red]x[/]\x1b[2J",)])
    print_line("[bold]y[/]", style="bold")
    shown = terminal.getvalue()
    assert "─" in shown
    assert "[red]x[/]\\u{1b}[2J" in shown
    assert "[bold]y[/]" in shown
    assert "\x1b[2J" not in shown


def test_a_command_writes_json_or_sarif_but_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_formats(parser)
    assert vars(parser.parse_args([])) == {"json": False, "sarif": False, "ignore": []}
    assert parser.parse_args(["--sarif", "--ignore", "a", "--ignore", "b"]).ignore == ["a", "b"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--json", "--sarif"])
    assert "not allowed with" in capsys.readouterr().err
