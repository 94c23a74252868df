from pathlib import Path

from sidecar.observe.docs import LABELS, families, labels_of, main, pages

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_metrics_is_current() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == pages()["metrics.md"], "run: make docs"


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    main(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.md"]


def test_every_metric_says_what_it_counts() -> None:
    assert [family.name for family in families() if not family.documentation] == []


def test_every_metric_has_a_series_so_that_its_labels_are_told() -> None:
    assert [family.name for family in families() if not family.samples] == []


def test_every_label_is_explained_and_no_other() -> None:
    assert {label for family in families() for label in labels_of(family)} == set(LABELS)
