"""Write the report of 20 evaluated phantoms and open it in Chromium: `make bench-report`.

A network is planned for and trained on other lumbar phantoms in CT and MR, for a few minutes. It predicts
the 20, of which one CT is 512 voxels wide, and they are evaluated. The report is then written in a process of
its own, opened, and searched, and each case is opened with its view in 3D. A page of 500 cases is made of
these, without volumes, by repeating them under other names. Prints one JSON object last.
"""

import argparse
import json
import os
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import Facts, autospine, forget_peak, in_fresh_process, peak_bytes
from result_page import measured_on, write_measured

sys.path.insert(0, str(Path(__file__).parents[1]))
import report_browser

TRAINED_ON, CASES, MANY = 6, 20, 500
MINUTES = 3
"""Time of the training, which teaches the network enough for every kind of fault to be on the page."""

WIDE = 512
DATASET = "Dataset900_Report"

GOALS = {
    "mb": 30.0,
    "open_seconds": 5.0,
    "write_seconds": 60.0,
    "write_gb": 1.5,
    "console_errors": 0,
    "network_requests": 0,
    "axe_violations": 0,
    "blank_canvases": 0,
    "mb_500": 100.0,
    "open_seconds_500": 10.0,
}


def make_cases(workspace: Path) -> None:
    """Draw phantoms, plan, train, predict those that are held out, and evaluate them, without a report."""
    raw = workspace / "raw" / DATASET
    wanted = ("-n", str(TRAINED_ON), "--test-cases", str(CASES), "--labels", "structures")
    autospine(workspace, "phantom", "-o", str(raw), *wanted)
    widen(raw)
    chosen = ("-d", DATASET, "-c", "fast")
    autospine(workspace, "plan-and-preprocess", *chosen, "--device", "cpu", "--no-report")
    limit = ("--fold", "full", "--max-minutes", str(MINUTES))
    autospine(workspace, "train", *chosen, *limit, "--device", "cpu", "--no-report")
    images = ("-i", str(raw / "imagesTs"), "-o", "out", "-f", "full", "--device", "cpu")
    autospine(workspace, "predict", *chosen, *images, "--no-report")
    metrics = ("--metric", "dice", "--metric", "hd95")
    autospine(workspace, "evaluate", "out", str(raw / "labelsTs"), *metrics, "--no-report")


def widen(raw: Path) -> None:
    """Resample the first CT and its labels to 512 voxels across, by nearest neighbours."""
    import SimpleITK as sitk

    image = next(iter(sorted((raw / "imagesTs").glob("*ct*_0000.nii.gz"))))
    for path in (image, raw / "labelsTs" / image.name.replace("_0000", "")):
        read = sitk.ReadImage(str(path))
        size = (WIDE, WIDE, read.GetSize()[2])
        spacing = [n * mm / new for n, mm, new in zip(read.GetSize(), read.GetSpacing(), size, strict=True)]
        grid = (sitk.Transform(), sitk.sitkNearestNeighbor, read.GetOrigin(), spacing, read.GetDirection())
        sitk.WriteImage(sitk.Resample(read, size, *grid), str(path))


def write_alone(options: Namespace) -> Facts:
    """Write the report of the folder, and say how long it took and how much memory the process held."""
    from autospine.report.folder_report import write_report

    forget_peak()
    began, processors = time.monotonic(), time.process_time()
    page = write_report(options.folder)
    return {
        "mb": page.stat().st_size / 1e6,
        "write_seconds": time.monotonic() - began,
        "write_processor_seconds": time.process_time() - processors,
        "write_gb": peak_bytes() / 1e9,
    }


def write_many(options: Namespace) -> Facts:
    """Write a page of many cases, which are those of the folder under many names."""
    from autospine.report import folder_report, report_page

    pages = []
    original = folder_report.write_page
    folder_report.write_page = lambda path, report: pages.append(report)
    folder_report.write_report(options.folder)
    folder_report.write_page = original
    (report,) = pages
    cases = [replace(report.cases[n % CASES], name=f"case_{n:03d}", volumes=None) for n in range(MANY)]
    path = options.folder / "many.html"
    report_page.write_page(path, replace(report, cases=tuple(cases)))
    return {"mb_500": path.stat().st_size / 1e6}


def opened(driver: object, page: Path) -> float:
    """Open a page and search its table; return the seconds until that has answered."""
    began = time.monotonic()
    driver.get(page.as_uri())  # type: ignore[attr-defined]
    driver.find_element("id", "search").send_keys("0")  # type: ignore[attr-defined]
    driver.execute_script("return document.getElementById('count').textContent")  # type: ignore[attr-defined]
    return time.monotonic() - began


def in_browser(folder: Path) -> Facts:
    """Open both pages, go through all cases of the first, and say what the browser says."""
    facts: Facts = {}
    with TemporaryDirectory() as downloads, report_browser.chromium(Path(downloads)) as driver:
        facts["open_seconds"] = opened(driver, folder / "report.html")
        facts["axe_violations"] = sum(
            each.startswith(("serious", "critical")) for each in report_browser.violations(driver)
        )
        driver.execute_script("document.getElementById('search').value = ''; update()")
        facts["blank_canvases"] = 0
        for row in driver.find_elements("css selector", "#table tbody .open"):
            driver.execute_script("arguments[0].click()", row)
            driver.execute_async_script(
                "Promise.all(Array.from(document.querySelectorAll('#pictures img'), (each) => each.decode()))"
                ".then(arguments[0], arguments[0])"
            )
            facts["blank_canvases"] += report_browser.blank_pictures(driver)
            facts["blank_canvases"] += report_browser.is_blank_in_3d(driver)
        facts["open_seconds_500"] = opened(driver, folder / "many.html")
        facts["console_errors"] = len(report_browser.complaints(driver))
        facts["network_requests"] = len(report_browser.outside_requests(driver))
    return facts


def page_of(facts: Facts) -> str:
    """The table of the page of results."""
    busy, processors = os.getloadavg()[0], facts["write_processor_seconds"]
    lines = [
        f"{measured_on()} {busy:.0f} programs were running on average beside or with these; writing took "
        f"{processors:.1f} seconds of a processor.",
        "",
        "| figure | measured | goal, at most |",
        "|---|---|---|",
        *(f"| `{key}` | {facts[key]:.4g} | {goal:g} |" for key, goal in GOALS.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Make the cases, measure, and print the figures, or be the process that writes a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="page that gets the table")
    parser.add_argument(
        "--keep", type=Path, help="make the cases in this folder, or take those that are there"
    )
    parser.add_argument("--child", choices=["write", "many"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"write": write_alone, "many": write_many}[options.child](options)))  # noqa: T201
        return
    if lacking := report_browser.lacking():
        raise SystemExit(f"a browser opens the report, and {lacking}; install it")
    with TemporaryDirectory() as temporary:
        workspace = options.keep or Path(temporary)
        workspace.mkdir(parents=True, exist_ok=True)
        folder = workspace / "out"
        if not (folder / "evaluation.json").is_file():
            make_cases(workspace)
        facts = in_fresh_process(__file__, "write", {"folder": folder})
        facts |= in_fresh_process(__file__, "many", {"folder": folder})
        facts |= in_browser(folder)
    text = page_of(facts)
    if options.write:
        write_measured(options.write, text)
    print(text)  # noqa: T201
    print(json.dumps({key: round(facts[key], 3) for key in GOALS}))  # noqa: T201


if __name__ == "__main__":
    main()
