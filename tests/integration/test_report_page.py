"""The report as people meet it: in a browser, opened from the disk."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import makers
import pytest
import report_browser
import report_folders

from autospine.cli import main
from autospine.prediction.case_log import PredictedCase, add_to_record
from autospine.report.folder_report import write_report
from autospine.storage.serialization import write_json

pytestmark = pytest.mark.skipif(bool(report_browser.lacking()), reason=report_browser.lacking())

UP, DOWN, RIGHT, BACKSPACE = "\ue013", "\ue015", "\ue014", "\ue003"
"""Keys as WebDriver has them."""

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return report_folders.evaluated_folder(tmp_path_factory.mktemp("page")) / "report.html"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def started(downloads) -> Iterator[Any]:
    with report_browser.chromium(downloads) as driver:
        yield driver


@pytest.fixture
def browser(started, page) -> Iterator[Any]:
    """The page, newly opened and without marks; afterwards it has said nothing and asked for nothing."""
    started.get(page.as_uri())
    started.execute_script("localStorage.clear()")
    started.get(page.as_uri())
    yield started
    assert report_browser.complaints(started) == []
    assert report_browser.outside_requests(started) == []


def texts(driver: Any, selector: str) -> list[str]:
    """Text of everything that a selector finds and that is shown."""
    return [each.text for each in driver.find_elements("css selector", selector) if each.is_displayed()]


def press(driver: Any, *keys: str) -> None:
    driver.switch_to.active_element.send_keys(*keys)


def shown_layers(driver: Any) -> set[str]:
    images = driver.find_elements("css selector", "#pictures [data-layer]")
    return {image.get_attribute("data-layer") for image in images if image.is_displayed()}


def click(driver: Any, selector: str) -> None:
    found = driver.find_element("css selector", selector)
    # The parts of the page that stay at the top hide what a driver has scrolled just into view.
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    found.click()


def choose(driver: Any, name: str, index: int) -> None:
    """Choose an entry of a list."""
    from selenium.webdriver.support.select import Select

    Select(driver.find_element("id", name)).select_by_index(index)


def test_the_worst_case_is_open_and_its_pictures_are_drawn(browser):
    assert texts(browser, "#case-name") == ["empty"]
    assert "L1 is missed: 0 % of it has any label" in texts(browser, "#findings li")
    sizes = browser.execute_script(
        "return Array.from(document.querySelectorAll('#pictures img'), i => i.complete ? i.naturalWidth : 0)"
    )
    assert len(sizes) == 6 * 4
    assert all(sizes)
    assert report_browser.blank_pictures(browser) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_people_who_see_or_hear_it(browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert report_browser.violations(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_points_of_charts_open_their_case_by_keys(browser):
    chart = browser.find_element("css selector", "#scores svg.chart")
    browser.execute_script("arguments[0].focus()", chart)
    names = [text.split(",")[0] for text in texts(browser, "#scores .reading") if text]
    assert names == ["empty"]
    press(browser, RIGHT, RIGHT)
    (reading,) = [text for text in texts(browser, "#scores .reading") if text]
    assert reading.startswith("shifted, L1: ")
    assert browser.find_element("css selector", ".dot.current").accessible_name == reading
    press(browser, "\n")
    assert texts(browser, "#case-name") == ["shifted"]
    press(browser, DOWN)  # the keys of the cases apply from here on
    assert texts(browser, "#case-name") == ["good"]


def test_commands_are_copied_by_a_button(browser):
    origin = {"origin": "file://", "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    click(browser, "#foot .copy")
    (words,) = texts(browser, "#foot .command")[:1]
    assert words.startswith("autospine ")
    report_browser.wait_for(browser, "document.querySelector('#foot .copy').textContent !== 'Copy'")
    if texts(browser, "#foot .copy")[0] == "Copied":
        read = "navigator.clipboard.readText().then(arguments[0], arguments[0])"
        assert browser.execute_async_script(read) == words
    else:  # the browser does not let pages write there
        assert browser.execute_script("return getSelection().toString()") == words


def test_print_has_the_table_and_the_open_case_without_what_is_pressed(browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert texts(browser, "#case-name") == ["empty"]
        assert len(texts(browser, "#table tbody tr")) == 4
        assert texts(browser, "nav, .tools, #flicker, #theme") == []
        ground = "return getComputedStyle(document.body).backgroundColor"
        assert browser.execute_script(ground) == "rgb(255, 255, 255)"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_table_is_sorted_searched_and_filtered(browser):
    def names() -> list[str]:
        return texts(browser, "#table tbody .open")

    assert names() == ["empty", "exchanged", "shifted", "good"]
    click(browser, "th[data-key=name] button")
    assert names() == ["empty", "exchanged", "good", "shifted"]
    click(browser, "th[data-key=name] button")
    assert names() == ["shifted", "good", "exchanged", "empty"]
    assert (
        browser.find_element("css selector", "th[data-key=name]").get_attribute("aria-sort") == "descending"
    )
    search = browser.find_element("id", "search")
    search.send_keys("goo")
    assert names() == ["good"]
    assert texts(browser, "#count") == ["1 of 4 cases"]
    search.send_keys(BACKSPACE * 3)
    choose(browser, "choose-site", 1)
    assert names() == ["good", "exchanged"]
    choose(browser, "choose-site", 0)
    choose(browser, "choose-class", 1)
    assert "of L1" in browser.find_element("id", "score-title").text
    assert names()[-1] == "good"


def test_cases_without_a_result_stay_first_whatever_the_table_shows(started, tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report")
    add_to_record(out, [PredictedCase(case="shifted", status="failed", error="the image is damaged")])
    started.get(write_report(out).as_uri())
    assert texts(started, "#table tbody .open")[0] == "shifted"
    assert (
        "the prediction has failed: the image is damaged; its score is that of an earlier label map"
        in texts(started, "#findings li")
    )
    for index in (1, 0):
        choose(started, "choose-class", index)
        assert texts(started, "#table tbody .open")[0] == "shifted"


def test_the_chosen_case_is_told_to_those_who_do_not_see_it(browser):
    assert browser.execute_script("return scrollY") == 0  # the page begins at its top
    current = browser.find_elements("css selector", "[aria-current]")
    assert [row.get_attribute("data-name") for row in current] == ["empty"]
    click(browser, "#table tbody tr:nth-child(2) .open")
    current = browser.find_elements("css selector", "[aria-current]")
    assert [row.get_attribute("data-name") for row in current] == ["exchanged"]


def test_keys_walk_through_the_cases_and_their_layers(browser):
    assert shown_layers(browser) == {"prediction"}
    click(browser, "#table tbody .open")
    for layer in ({"reference"}, {"difference"}, set(), {"prediction"}):
        press(browser, RIGHT)
        assert shown_layers(browser) == layer
    press(browser, DOWN, DOWN)
    assert texts(browser, "#case-name") == ["shifted"]
    press(browser, UP)
    assert texts(browser, "#case-name") == ["exchanged"]
    click(browser, "#keys")
    click(browser, "#case-name")
    press(browser, DOWN)
    assert texts(browser, "#case-name") == ["exchanged"]


def test_flicker_changes_between_reference_and_prediction(browser):
    click(browser, "#flicker")
    seen = set()
    end = time.monotonic() + 10
    while len(seen) < 2 and time.monotonic() < end:
        seen |= shown_layers(browser)
    assert seen == {"prediction", "reference"}
    click(browser, "#flicker")


def test_marks_survive_a_reload_and_go_into_files(browser, downloads, page):
    click(browser, "#table tbody .open")
    press(browser, "ff4")
    click(browser, "#note")
    press(browser, '=the canal, "cut"')
    browser.get(page.as_uri())
    assert texts(browser, "#table tbody tr:first-child .mark") == ["fail ✎"]
    assert texts(browser, "#table tbody tr:first-child .grade") == ["4"]
    assert browser.find_element("id", "note").get_attribute("value") == '=the canal, "cut"'
    click(browser, "#save-json")
    click(browser, "#save-csv")
    marks = json.loads(awaited(downloads / "marks.json"))
    assert marks["cases"] == {"empty": {"mark": "fail", "grade": 4, "note": '=the canal, "cut"'}}
    assert '"empty","fail","4","\'=the canal, ""cut"""' in awaited(downloads / "marks.csv")
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())
    assert texts(browser, "#table tbody tr:first-child .mark") == [""]
    browser.find_element("id", "load").send_keys(str(downloads / "marks.json"))
    assert texts(browser, "#message") == ["marks of 1 case loaded"]
    assert texts(browser, "#table tbody tr:first-child .mark") == ["fail ✎"]


def test_the_viewer_in_3d_shows_the_volumes_of_a_case(browser):
    assert not report_browser.is_blank_in_3d(browser)
    assert texts(browser, "#scene-note")[0].startswith("reduced for this page: voxels of 3 × 2 × 2 mm")
    press(browser, RIGHT)
    click(browser, "#volume")
    assert texts(browser, "#scene") == []


def test_the_crosshair_in_3d_is_shared_with_the_pictures_and_names_what_is_there(browser):
    click(browser, "#volume")
    end = time.monotonic() + 60
    while texts(browser, "#place") in ([], [""]) and time.monotonic() < end:
        time.sleep(0.2)
    assert re.fullmatch(
        r"x 12.0, y [\d.]+, z [\d.]+ mm \(LPS\); prediction: background; reference: L1",
        *texts(browser, "#place"),
    )
    rings = "return Array.from(document.querySelectorAll('.place'), (ring) => !ring.hidden)"
    assert browser.execute_script(rings)[:3] == [True] * 3  # the worst place is where it begins
    clicked = """
    const stack = document.querySelectorAll("#pictures .stack")[0];
    const box = stack.getBoundingClientRect();
    const at = { clientX: box.left + 0.02 * box.width, clientY: box.top + 0.02 * box.height };
    stack.dispatchEvent(new MouseEvent("click", { bubbles: true, ...at }));
    """
    browser.execute_script(clicked)
    assert texts(browser, "#place")[0].endswith("prediction: background; reference: background")
    assert browser.execute_script(rings)[:3] == [True, False, False]
    click(browser, "#volume")
    assert browser.execute_script(rings) == []


def test_the_case_stays_in_view_while_a_note_is_written(browser):
    browser.execute_script("document.getElementById('cases').scrollIntoView()")
    press(browser, "n")
    tops = [
        browser.execute_script(f"return document.getElementById('{name}').getBoundingClientRect().top")
        for name in ("case-name", "note")
    ]
    height = browser.execute_script("return document.documentElement.clientHeight")
    assert 0 <= tops[0] < tops[1] < height


def test_pictures_say_where_right_and_left_are_and_grow(browser):
    assert texts(browser, "#pictures .side")[:6] == ["A", "P", "R", "L", "R", "L"]
    picture = browser.find_element("css selector", "#pictures .stack")
    width = picture.rect["width"]
    click(browser, "#larger")
    assert picture.rect["width"] > 1.3 * width


def test_a_file_that_holds_no_marks_is_refused_in_words(browser, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"cases": {"empty": {"mark": "fail"}}}', encoding="utf-8")
    browser.find_element("id", "load").send_keys(str(other))
    assert texts(browser, "#message") == ["other.json has no marks that can be read: no marks of a report"]


def test_a_point_of_a_chart_opens_its_case(browser):
    dot = browser.find_element("css selector", "#scores .dot[data-case='3']")
    browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", dot)
    assert texts(browser, "#case-name") == ["good"]


def test_nothing_is_wider_than_a_phone(browser):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        table = browser.find_element("css selector", ".list")
        assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", table)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
        assert browser.find_element("id", "pictures").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_and_light_are_as_the_system_has_them_until_the_button_is_pressed(browser):
    def ground() -> str:
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    light = ground()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        assert ground() != light
        click(browser, "#theme")
        assert ground() == light
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def hostile_page(folder: Path) -> Path:
    out = report_folders.hostile_folder(folder)
    references = folder / "Dataset001_Small/labelsTs"
    assert main(["evaluate", str(out), str(references)]) == 0
    return out / "report.html"


def experiment_page(folder: Path) -> Path:
    return write_report(report_folders.experiment_folder(folder))


def model_page(folder: Path) -> Path:
    return write_report(report_folders.experiment_folder(folder) / "plain/seed_0")


def plan_page(folder: Path) -> Path:
    write_json(folder / "plan.json", makers.plan())
    return write_report(folder)


@pytest.mark.parametrize("made", [hostile_page, experiment_page, model_page, plan_page])
def test_pages_of_every_kind_open_without_a_complaint(started, tmp_path, made):
    started.get(made(tmp_path).as_uri())
    for row in started.find_elements("css selector", "#table tbody .open"):
        started.execute_script("arguments[0].click()", row)
        assert report_browser.blank_pictures(started) == 0
        assert texts(started, "#case-name") == [row.text]
    assert started.execute_script("return document.querySelectorAll('b, [onerror]').length") == 0
    assert report_browser.violations(started) == []
    assert report_browser.complaints(started) == []
    assert report_browser.outside_requests(started) == []


def awaited(path: Path) -> str:
    """Text of a file that the browser is saving."""
    end = time.monotonic() + 20
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_text(encoding="utf-8")
