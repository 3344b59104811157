"""Pages to test: what they said and asked for, and files answered from memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, Route

from sdxl_mel import web

KINDS = {
    "js": "text/javascript",
    "css": "text/css",
    "html": "text/html",
    "json": "application/json",
    "onnx": "application/octet-stream",
    "png": "image/png",
    "wav": "audio/wav",
}
REFUSED = "the server responded with a status of 400"
ORIGIN = "http://localhost"


@contextmanager
def opened(browser: Browser, **options: object) -> Iterator[Page]:
    """Yield a page; afterwards it must have failed nowhere, and said nothing but that a request was refused (400)."""
    page = browser.new_page(**options)
    said: list[str] = []
    page.on("console", lambda message: REFUSED in message.text or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
        assert not said
    finally:
        page.close()


def answer(page: Page, files: Mapping[str, bytes | str]) -> None:
    """Answer http://localhost/NAME with `files` and with what the package ships; nothing leaves the machine."""

    def respond(route: Route) -> None:
        name = route.request.url.removeprefix(f"{ORIGIN}/")
        content = files[name] if name in files else web.read(name)
        route.fulfill(body=content, content_type=KINDS[name.rpartition(".")[2]])

    page.route(f"{ORIGIN}/**", respond)


def renderer_of(page: Page) -> int:
    """Return the process that shows a page, found by having it work: others may wait for pages to come."""
    session = page.context.browser.new_browser_cdp_session()

    def worked() -> dict[int, float]:
        found = session.send("SystemInfo.getProcessInfo")["processInfo"]
        return {int(each["id"]): each["cpuTime"] for each in found if each["type"] == "renderer"}

    before = worked()
    page.evaluate("() => { const end = performance.now() + 150; while (performance.now() < end); }")
    after = worked()
    return max(after, key=lambda process: after[process] - before.get(process, 0.0))
