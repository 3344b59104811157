"""Who may ask the server for what: a check of every request before it reaches a route, and headers on every answer.

A page of another site can make a browser send requests to a server on the same machine, under the server's own name
even (DNS rebinding). So the name that was asked for, the site that asks, and beyond this machine a token are checked.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "sdxl_mel_token"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; connect-src 'self'; font-src 'self'; worker-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; connect-src data: blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""A report is a page of its own: it may run what is in it, and reach nothing."""
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
READING = frozenset({"GET", "HEAD"})
MOST_JSON_BYTES = 1 << 20
UPLOAD_PATH = "/api/uploads"
NAMES_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?")


class Guard:
    """Passes on the requests of the server's own pages and of scripts; `names` are the hosts it answers to.

    With a `token` every request must state it: in a cookie, which `/?token=` sets, or as a bearer.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], token: str | None, most_upload_bytes: int) -> None:
        self.app = app
        self.names = frozenset(name.lower() for name in names)
        self.token, self.most_upload_bytes = token, most_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # There are no web sockets.
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) or self._login(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
            await send(message)

        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return why a request is not passed on, None if it is."""
        method, path = scope["method"], scope["path"]
        if method not in CHANGING | READING:
            return refused(405, f"{method}: not a way to ask this server for anything")
        hosts = headers.getlist("host")
        host = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if host is None or host[1].lower() not in self.names:
            return refused(
                403, f"host {hosts[0][:80] if hosts else ''!r}: not a name of this server; state it with --names"
            )
        for origin in headers.getlist("origin"):
            parts = urlsplit(origin) if origin != "null" else None
            if parts is None or parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                return refused(403, f"origin {origin[:80]!r}: another site; open the page of the studio itself")
        site = headers.get("sec-fetch-site")
        opened = path == "/" and method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in (None, "same-origin", "none") and not opened:
            return refused(403, "sec-fetch-site: asked by another site; open the page of the studio itself")
        return self._body_refusal(method, path, headers)

    def _body_refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        if method not in CHANGING:
            return None
        upload = path == UPLOAD_PATH
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = "application/octet-stream" if upload else "application/json"
        if kind != wanted:
            return refused(415, f"content-type: found {kind[:80]!r}, expected {wanted}")
        length, most = headers.get("content-length", "0"), self.most_upload_bytes if upload else MOST_JSON_BYTES
        if not length.isdecimal() or int(length[:15]) > most:
            return refused(413, f"content-length: {length[:20]} bytes; at most {most}")
        return None

    def _login(self, scope: Scope, headers: Headers) -> Response | None:
        """Return an answer to who has no token, or who brings it in the address of the page."""
        if self.token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and query and self._matches(query):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, query, httponly=True, samesite="strict", path="/")
            return answer
        bearer = headers.get("authorization", "")
        if bearer.startswith("Bearer ") and self._matches(bearer.removeprefix("Bearer ").strip()):
            return None
        if self._matches(cookie_of(headers)):
            return None
        return refused(401, "a token is needed: open /?token=TOKEN once, or send 'Authorization: Bearer TOKEN'")

    def _matches(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def refused(status: int, sentence: str) -> JSONResponse:
    """Return an error as every route gives it."""
    return JSONResponse({"error": sentence}, status)


def cookie_of(headers: Headers) -> str:
    """Return the token in the cookie of a request, "" where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is that of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
