"""The comparison that the page is made from, and a browser to open it in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from normwright.doctor.diagnosis import Diagnosis
from normwright.lab.records import Comparison
from normwright.report import write

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


def _sample(file: str) -> ModuleType:
    """A module beside this one; the tests are not a package, so it is loaded by its path."""
    name = f"normwright_report_{file.removesuffix('.py')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def make_comparison() -> Callable[..., Comparison]:
    """Builds a comparison; see `sample.comparison` for what can be asked for."""
    return _sample("sample.py").comparison


@pytest.fixture(scope="session")
def make_diagnosis() -> Callable[..., Diagnosis]:
    """Builds a diagnosis; see `doctor_sample.diagnosis` for what can be asked for."""
    return _sample("doctor_sample.py").diagnosis


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium with a fresh profile. Skips without it, unless NORMWRIGHT_REQUIRE names it."""
    executable = shutil.which("chromium")
    if executable is None:
        if "chromium" in os.environ.get("NORMWRIGHT_REQUIRE", "").split(","):
            pytest.fail(
                "NORMWRIGHT_REQUIRE names chromium, but it is not installed: apt-get install chromium"
            )
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    # As all else that is waited for: a loaded machine may not draw a page for longer than the 5 s of expect.
    playwright.expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=executable, headless=True, args=list(FLAGS)
        )
        yield context
        context.close()


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report of records by file://; at the end, no error and no request may have been seen."""
    faults: list[str] = []
    pages: list[Any] = []

    def look(records: Any, width: int, *, by: Callable[..., None] = write, **more: Any) -> Any:
        path = tmp_path / f"report-{len(pages)}.html"
        by(records, path, **more)
        page = chromium.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: (faults.append("a name ran as a script"), dialog.dismiss()))
        page.on("request", lambda request: _local(request.url) or faults.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        page.wait_for_selector("footer")
        return page

    yield look
    for page in pages:
        page.close()
    assert faults == []


@pytest.fixture
def open_report(
    open_page: Callable[..., Any], make_comparison: Callable[..., Comparison]
) -> Callable[..., Any]:
    """Opens the report of a comparison that is asked for as by `make_comparison`."""

    def look(width: int = 1280, **asked: Any) -> Any:
        return open_page(make_comparison(**asked), width)

    return look


@pytest.fixture
def open_diagnosis(
    open_page: Callable[..., Any], make_diagnosis: Callable[..., Diagnosis]
) -> Callable[..., Any]:
    """Opens the report of a diagnosis that is asked for as by `make_diagnosis`."""

    def look(width: int = 1280, **asked: Any) -> Any:
        return open_page(make_diagnosis(**asked), width, command="normwright doctor lenet --data digits")

    return look


def _local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))
