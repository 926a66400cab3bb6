"""Chromium without a window, for tests and measurements of the report."""

import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

SCRIPT_SECONDS = 240.0
"""Longest time of a script in the page: axe-core is slow on a machine that others keep busy."""


def lacking() -> str:
    """What is not installed that these tests need; empty if nothing is."""
    try:
        import axe_core_python  # noqa: F401
        import selenium  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return "" if BROWSER and DRIVER else "chromium and chromedriver are not installed"


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """Start the browser, with everything recorded that it asks for and complains of.

    Args:
        downloads: Folder that it saves files into.
    """
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    arguments = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,900")
    graphics = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    for argument in (*arguments, *graphics):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(SCRIPT_SECONDS)
    driver.command_executor.client_config.timeout = 2 * SCRIPT_SECONDS
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """What the browser has complained of since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def outside_requests(driver: Any) -> list[str]:
    """Addresses outside of the page and the disk that the browser has asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def violations(driver: Any) -> list[str]:
    """Rules of WCAG, and of good practice, that axe-core finds broken: impact, rule and first place."""
    from axe_core_python import selenium as axe

    driver.execute_script(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [f"{each['impact']}: {each['id']} at {each['nodes'][0]['target']}" for each in found["violations"]]


def is_blank_in_3d(driver: Any, colours: int = 20, seconds: float = 60.0) -> bool:
    """Whether the view in 3D of the open case, which this opens, shows fewer colours than so many.

    Args:
        driver: The browser with a page.
        colours: Fewest colours of a picture of something.
        seconds: Time that it has to draw.
    """
    driver.execute_script("document.getElementById('volume').click()")
    end = time.monotonic() + seconds
    canvas = driver.find_element("css selector", "#canvas canvas")
    while time.monotonic() < end:  # it draws when it has time
        picture = Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")
        if len(picture.getcolors(2**24) or ()) >= colours:
            return False
        time.sleep(0.2)
    return True


def wait_for(driver: Any, condition: str, seconds: float = 20.0) -> None:
    """Wait until an expression of JavaScript is true."""
    end = time.monotonic() + seconds
    while not driver.execute_script(f"return {condition}"):
        assert time.monotonic() < end, f"{condition} is not true after {seconds:.0f} s"
        time.sleep(0.1)


def blank_pictures(driver: Any) -> int:
    """Number of pictures of the open case that are not drawn, or are of one colour."""
    script = """
    return Array.from(document.querySelectorAll("#pictures img:first-child"), (image) => {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
      if (!image.naturalWidth) return 1;
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      return pixels.every((value, i) => value === pixels[i % 4]) ? 1 : 0;
    }).reduce((sum, each) => sum + each, 0)"""
    return int(driver.execute_script(script))
