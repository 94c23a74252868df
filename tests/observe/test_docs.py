import re
from pathlib import Path

from sidecar.observe.docs import LABELS, families, main, pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_page_of_metrics_is_current() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == pages()["metrics.md"], "run: make docs"


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    main(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.md"]


def test_every_metric_says_what_it_counts() -> None:
    assert [family.name for family in families() if not family.documentation] == []


def test_every_metric_that_the_code_names_is_on_the_page() -> None:
    code = "".join((ROOT / "sidecar/observe" / name).read_text() for name in ("scrape.py", "sink_space.py"))
    missing = (
        set(re.findall(r'"(sidecar_[a-z_]+)"', code)) - {family.name for family in families()} - {"sidecar_process"}
    )
    assert not missing, f"families() in sidecar/observe/docs.py must set what brings {sorted(missing)} into a scrape"


def test_every_gauge_says_how_workers_merge_it() -> None:
    silent = [family.name for family in families() if family.merge is None]
    assert not silent, f"make each gauge by highest, lowest or summed of sidecar/observe/exposition.py: {silent}"


def test_every_label_is_explained_and_no_other() -> None:
    different = {label for family in families() for label in family.labels} ^ set(LABELS)
    assert not different, f"explain each label, and no other, in LABELS of sidecar/observe/docs.py: {different}"
