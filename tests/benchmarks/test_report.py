from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.histogram import bucket_of
from benchmarks.report import write_report
from benchmarks.results import read, write
from tests.benchmarks.samples import results, sample

ROWS = [
    sample(cost * (1 + number / 100), peer=peer, number=number)
    for peer, cost in (("haproxy", 10.0), ("sidecar", 25.0))
    for number in (0, 1)
]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = results(*ROWS, missing={"Envoy": "it is not there"})
    write(run, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == run


def test_a_report_says_who_took_part_what_they_do_not_do_and_who_is_missing(tmp_path: Path) -> None:
    write_report(results(*ROWS, missing={"Envoy <plain>": "it is not there"}), tmp_path)
    markdown, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for text in (markdown, page):
        assert "any look at the token" in text
        assert "it is not there" in text
        assert "2.50 (2.50 to 2.50)" in text
    assert "Envoy &lt;plain&gt;" in page


def test_the_sidecar_is_told_beside_each_peer(tmp_path: Path) -> None:
    write_report(results(*ROWS), tmp_path)
    assert "| HAProxy | 2.50 (2.50 to 2.50) |" in (tmp_path / "report.md").read_text()


def test_the_tails_of_the_sidecar_are_told_in_short_and_no_column_is_empty(tmp_path: Path) -> None:
    rows = [
        sample(cost, peer=peer, scenario="silent", number=number, latency=[[bucket_of(ns), 1000]])
        for peer, cost, ns in (("haproxy", 10.0, 1_000_000), ("sidecar", 25.0, 2_000_000))
        for number in (0, 1)
    ]
    write_report(results(*rows), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "| delegation sidecar | 2.50 (2.50 to 2.50) | 2.00 (2.00 to 2.00) | all 2,000 calls answered |" in markdown
    assert "| peer | figure | x haproxy | p50 / p99 us | p99 x haproxy | per second | remarks |" in markdown


def test_memory_is_told_for_each_connection_and_each_request_in_progress(tmp_path: Path) -> None:
    rows = [
        replace(sample(1.0, peer=peer, scenario=name, number=number), rss_mib=mib)
        for peer, name, number, mib in (
            ("haproxy", "http2-memory-100", 0, 20.0),
            ("haproxy", "http2-memory-1000", 0, 50.0),
            ("sidecar", "http2-memory-100", 0, 45.0),
            ("sidecar", "http2-memory-1000", 0, 90.0),
            ("sidecar", "http2-memory-100", 1, 85.0),
            ("sidecar", "http2-open-100", 0, 45.0),
            ("sidecar", "http2-open-1000", 0, 54.0),
        )
    ]
    write_report(results(*rows), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "| HAProxy | - | 34.1 | - |" in markdown
    assert "| delegation sidecar | - | 51.2 | 10.2 |" in markdown


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    write_report(results(*ROWS), tmp_path)
    loaded: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loaded.extend(value or "" for name, value in attrs if name in {"src", "href"})
            loaded.extend(["script"] * (tag == "script"))

    page = (tmp_path / "report.html").read_text()
    Reader().feed(page)
    assert loaded == []
    assert "<svg" in page


def test_a_restless_base_is_said_instead_of_ratios(tmp_path: Path) -> None:
    restless = [sample(10.0, peer="haproxy"), sample(20.0, peer="haproxy", number=1), *ROWS[2:]]
    write_report(results(*restless), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "No ratio is told here: the base itself spreads by 33%" in markdown
    assert "2.50" not in markdown


def test_growth_is_a_line_over_what_grows(tmp_path: Path) -> None:
    rows = [
        sample(cost, scenario=f"connections-{amount}", peer="sidecar", number=number)
        for amount, cost in ((1, 50.0), (100, 40.0), (1000, 45.0))
        for number in (0, 1)
    ]
    write_report(results(*rows), tmp_path)
    assert "<polyline" in (tmp_path / "connections.svg").read_text()
    assert "1,000 open connections" in (tmp_path / "report.md").read_text()
