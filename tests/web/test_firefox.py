"""The exported site in Firefox: drawn, played, and opened again without its host."""

import shutil
from pathlib import Path

import pytest

from tests.exported import Site
from tests.web.firefox import firefox
from tests.web.static import hosted

READY = "document.querySelector('#worker')?.dataset.state === 'ready'"
MAKE = """const prompt = document.querySelector("textarea");
  prompt.value = "bells";
  document.querySelector(".primary").click();"""
KEPT = "document.querySelector('#worker')?.textContent.includes('also offline')"
PLAYS = "document.querySelector('mel-player[data-ready]')"


@pytest.mark.slow
def test_firefox_draws_and_keeps_the_page(slim_site: Site, tmp_path: Path) -> None:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("no Firefox on this machine; apt-get install firefox-esr")
    with firefox(program, tmp_path) as window:
        with hosted(site=slim_site.folder) as host:
            window.go(f"{host.address}site/")
            window.wait(READY)
            window.evaluate(MAKE)
            window.wait(PLAYS)
            window.wait(KEPT)
        window.go(f"{host.address}site/")  # The host is gone.
        window.wait(READY)
        window.wait(PLAYS)
        assert window.evaluate("return document.querySelector('.error, .notice')?.textContent ?? null;") is None
