"""What stands in the way of people who do not see or point well: axe's findings, and what axe does not look at."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
WIDTH = "() => [document.documentElement.scrollWidth, innerWidth]"


def problems(page: Page) -> list[str]:
    """Return what axe calls serious or critical, each with its element, and whether the page scrolls sideways.

    axe is evaluated, not loaded, so that the page keeps its own policy (CSP).
    """
    found = [
        f"{violation['id']}: {node['html'][:120]} {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]
    wide, seen = page.evaluate(WIDTH)
    return [*found, *([f"scrolls sideways: {wide} of {seen} pixels"] if wide > seen + 1 else [])]
