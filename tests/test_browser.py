"""What a person sees, in Debian's Chromium: a notebook in JupyterLab, and the report at several widths and on paper.

Deselected by default. ``pip install -e '.[browser]'``, then ``pytest -m browser tests/test_browser.py``; screenshots go to
the folder that STUDYLIB_SCREENSHOTS names.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from test_page import NOTEBOOKS, write_runs

from studylib import paths
from studylib.publishing import page

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def shots(tmp_path) -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("STUDYLIB_SCREENSHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def lab(tmp_path, glyph_cache):
    """Address of a JupyterLab on the notebooks, at scale smoke, with runs of its own."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    text = (paths.NOTEBOOKS / "00_quickstart.ipynb").read_text(encoding="utf-8")
    default = json.dumps('scale: str = "quick"')[1:-1]
    assert text.count(default) == 1
    (folder / "00_quickstart.ipynb").write_text(text.replace(default, default.replace("quick", "smoke")), encoding="utf-8")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").symlink_to(glyph_cache)
    own = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    names = [f"JUPYTERLAB_{name[4:]}" if name.startswith("LAB_") else f"JUPYTER_{name}" for name in own]
    environment = os.environ | {name: str(tmp_path / "jupyter" / name) for name in names}
    environment |= {"STUDYLIB_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(paths.REPOSITORY)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = [
        "--no-browser",
        "--allow-root",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"{address}/api", process)
            yield address
        finally:
            process.kill()  # asked politely while it starts, it may wait for ever; its kernels end with it
            process.wait()


def wait_for(address: str, process: subprocess.Popen, seconds: float = 120) -> None:
    """Until the server answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, "JupyterLab ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


# Of the notebook in front, as JupyterLab's model has it: cells below the screen are not in the document.
CELLS = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
  return cells.filter(cell => cell.type === 'code' && cell.sharedModel.source.trim()).map(cell => cell.toJSON());
}"""


def test_the_quickstart_runs_in_jupyterlab(lab, browser, shots):
    window = browser.new_page(viewport={"width": 1400, "height": 1000})
    window.goto(f"{lab}/lab/tree/00_quickstart.ipynb?reset", wait_until="domcontentloaded")
    window.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=120_000)
    window.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    window.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)
    window.get_by_role("menuitem", name="Run", exact=True).click()
    window.wait_for_timeout(1000)  # a menu that has just opened lets a click pass
    window.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    window.get_by_text("[*]:").first.wait_for(timeout=60_000)
    cells, outputs = [], []
    until = time.monotonic() + 600
    while not (cells and all(cell["execution_count"] for cell in cells)):
        assert time.monotonic() < until, "the notebook takes longer than ten minutes"
        time.sleep(1)
        cells = window.evaluate(CELLS)
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert not [output for output in outputs if output["output_type"] == "error"]
    said = "".join("".join(output.get("text", "")) for output in outputs)
    assert "epoch" in said and "100%" in said  # the bar of the runs
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    panel = window.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
    panel.evaluate("panel => panel.scrollTo(0, 0)")
    for number in range(4):
        time.sleep(1)
        window.screenshot(path=shots / f"lab-{number}.png")
        panel.evaluate("panel => panel.scrollBy(0, 900)")
    assert window.locator(".jp-NotebookPanel .jp-OutputArea img").count() >= 1
    window.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_report_fits_the_screen_and_shows_its_figures(browser, shots, tmp_path, width, scheme):
    write_runs()
    alone = shutil.copytree(page.write(NOTEBOOKS).parent, tmp_path / "alone")
    shutil.rmtree(paths.runs())
    window = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    failed = []
    window.on("requestfailed", lambda request: failed.append(request.url))
    window.goto((alone / "index.html").as_uri())
    window.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    window.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    window.wait_for_function("[...document.images].every(image => image.complete)")
    assert window.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert window.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not failed
    back = window.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    window.screenshot(path=shots / f"report-{width}-{scheme}.png", full_page=True)
    window.close()


def test_report_prints_dark_on_white(browser, shots):
    write_runs()
    window = browser.new_page(color_scheme="dark")
    window.goto(page.write(NOTEBOOKS).as_uri())
    window.emulate_media(media="print", color_scheme="dark")
    assert window.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    window.set_viewport_size({"width": 690, "height": 1000})  # A4 less its margins
    assert window.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert window.pdf(path=shots / "report.pdf", format="A4").startswith(b"%PDF")
    window.close()
