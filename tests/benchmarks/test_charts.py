from xml.etree import ElementTree

from benchmarks.charts import bars, lines
from benchmarks.ratios import Spread

SVG = "{http://www.w3.org/2000/svg}"


def test_each_row_has_a_bar_as_long_as_its_figure() -> None:
    drawn = ElementTree.fromstring(
        bars("t", [("a", Spread(1.0, 1.0, 1.0, 2)), ("b", Spread(2.0, 1.5, 2.5, 2))], unit="x")
    )
    first, second = (float(bar.attrib["width"]) for bar in drawn.iter(f"{SVG}rect"))
    assert abs(second - 2 * first) < 0.2


def test_names_are_text_and_nothing_else() -> None:
    drawn = ElementTree.fromstring(bars("<script>", [("a & b", Spread(1.0, 1.0, 1.0, 2))], unit="x"))
    assert "a & b" in [text.text for text in drawn.iter(f"{SVG}text")]


def test_each_series_has_a_line_and_a_point_for_each_amount() -> None:
    drawn = ElementTree.fromstring(
        lines("t", {"a": [(1, 5.0), (1000, 6.0)], "b": [(1, 1.0), (1000, 9.0)]}, x="n", y="us")
    )
    assert len(list(drawn.iter(f"{SVG}polyline"))) == 2
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4


def test_nothing_is_no_chart() -> None:
    assert lines("t", {"a": []}, x="n", y="us") == ""
