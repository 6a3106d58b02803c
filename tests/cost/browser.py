"""A real browser for tests: Chromium without a window, as the system has it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class View:
    """A page that is open, and what happened while it was."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """The text of every element that matches."""
        return self.page.locator(selector).all_inner_texts()

    def count(self, selector: str) -> int:
        """How many elements match."""
        return self.page.locator(selector).count()


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped where there is none, or no playwright to steer it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(_NAMES)}")
    with api.sync_playwright() as playwright:
        # The sandbox needs rights that a container's root does not have; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[View]:
    """A file open in the browser, in a window of this many pixels."""
    page = browser.new_page(viewport={"width": width, "height": 1600}, color_scheme=scheme)
    page.set_default_timeout(60_000)  # a page of thousands of rows on a busy machine
    view = View(page)
    page.on("console", lambda message: view.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: view.console.append(f"error: {error.stack or error}"))
    page.on("request", lambda request: view.requests.append(request.url))

    def dismiss(dialog: Any) -> None:
        view.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    try:
        page.goto(path.as_uri())
        page.wait_for_selector("#memory .main-svg", state="attached")
        yield view
    finally:
        page.close()
