import re
from xml.etree import ElementTree

import pytest

from autospine.report.charts import (
    ChartInterval,
    ChartPoint,
    difference_plot,
    line_chart,
    scatter_plot,
    strip_plot,
)

HOSTILE = '<script>alert("1")</script>&\u202e'


def shapes(svg: str, name: str) -> list[ElementTree.Element]:
    return [each for each in ElementTree.fromstring(svg).iter() if each.tag == name]


def test_points_of_a_strip_are_placed_by_their_value_and_know_their_case():
    points = [
        ChartPoint(case=3, name="a", x=0.0),
        ChartPoint(case=5, name="b", x=1.0),
        ChartPoint(case=6, name="c", x=0.5),
    ]
    dots = shapes(strip_plot({"L1": points}, title="Dice", high=1.0), "circle")
    assert [dot.get("data-case") for dot in dots] == ["3", "5", "6"]
    left, right, middle = (float(dot.get("cx", "nan")) for dot in dots)
    assert middle == pytest.approx((left + right) / 2, abs=0.1)


def test_what_is_undefined_is_left_out():
    svg = strip_plot({"L1": [ChartPoint(case=0, name="a", x=float("nan"))], "L2": []}, title="Dice")
    assert not shapes(svg, "circle")
    assert shapes(svg, "title")[0].text == "L1"


@pytest.mark.parametrize(
    "svg",
    [
        strip_plot({HOSTILE: [ChartPoint(case=0, name=HOSTILE, x=0.5)]}, title=HOSTILE),
        scatter_plot(
            [ChartPoint(case=0, name=HOSTILE, x=1, y=2)], title=HOSTILE, x_title=HOSTILE, y_title="s"
        ),
        line_chart({HOSTILE: [(1, 2), (2, 3)]}, title=HOSTILE, x_title="x", y_title=HOSTILE),
    ],
)
def test_names_are_shown_as_text(svg):
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert HOSTILE in [root.get("aria-label")]
    assert {each.tag for each in root.iter()} <= {"svg", "g", "text", "title", "line", "circle", "polyline"}


def test_lines_break_off_at_values_that_are_not_finite_and_have_a_key():
    svg = line_chart(
        {"loss": [(1, 1.0), (2, float("nan")), (3, 0.5)], "one": [(2, 0.7)], "none": []},
        title="Loss",
        x_title="epoch",
        y_title="",
    )
    chart, _, key = svg.partition("</svg>")
    lines = re.findall(r'points="([^"]+)"', chart)
    assert [len(line.split()) for line in lines] == [2, 1]
    assert re.findall(r"</svg> (\w+)</li>", key) == ["loss", "one"]


def test_ticks_are_round_and_within_the_axis():
    svg = strip_plot({"a": [ChartPoint(case=0, name="a", x=37.2)]}, title="HD95", unit=" mm")
    ticks = [text.text for text in shapes(svg, "text") if text.text and text.text.endswith(" mm")]
    assert ticks == ["0 mm", "10 mm", "20 mm", "30 mm"]


def test_differences_on_one_side_have_0_in_view():
    rows = {"L1": ChartInterval(value=0.5, low=0.4, high=0.6), "L2": ChartInterval(value=0.3)}
    left = [
        line for line in shapes(difference_plot(rows, title="Dice"), "line") if line.get("class") == "zero"
    ]
    assert len(left) == 1


def test_epochs_are_counted_in_whole_numbers():
    svg = line_chart({"loss": [(1, 0.8), (2, 0.5)]}, title="Loss", x_title="epoch", y_title="")
    ticks = [each.text for each in shapes(svg, "text") if each.get("text-anchor") == "middle"]
    assert ticks == ["1", "2"]
