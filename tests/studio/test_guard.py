"""Who may ask for what: other sites, other names and other machines may not, and nothing escapes the root."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from sdxl_mel.arguments import parse_arguments
from sdxl_mel.errors import InputError
from sdxl_mel.studio.app import open_app
from sdxl_mel.studio.command import Config
from sdxl_mel.studio.guard import COOKIE
from tests.studio.hostile import hostile_requests
from tests.studio.project import SECRET, client_of, write_project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("guard") / "project")


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "testserver.evil.example"}, 403),
        ({"host": "testserver@evil.example"}, 403),
        ({"origin": "http://testserver"}, 200),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver:81"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_only_the_page_itself_asks(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.get("/api", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_form_of_another_site_changes_nothing(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = client.post("/api/jobs/000001/remove", headers={"content-type": kind})
        assert answer.status_code == 415


def test_beyond_this_machine_every_request_states_the_token(root: Path, tmp_path: Path) -> None:
    token = "a long secret that nobody guesses"
    with client_of(write_project(tmp_path / "project"), token) as client:
        for path in ("/", "/api", "/api/events", "/web/player.js", "/?token=wrong"):
            assert client.get(path).status_code == 401, path
        assert client.get("/api", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/api", headers={"authorization": "Bearer \xff".encode("latin-1")}).status_code == 401
        answer = client.get(f"/?token={token}", follow_redirects=False)
        assert answer.status_code == 303
        assert "httponly" in answer.headers["set-cookie"].lower()
        assert "samesite=strict" in answer.headers["set-cookie"].lower()
        assert client.get("/api", headers={"cookie": f'{COOKIE}="{token}"'}).status_code == 200


def test_a_host_that_others_can_reach_needs_a_token() -> None:
    with pytest.raises(InputError, match="--token"):
        parse_arguments(Config, ["--host", "0.0.0.0"], "studio")
    with pytest.raises(InputError, match="token"):
        parse_arguments(Config, ["--host", "0.0.0.0", "--token", "short"], "studio")
    assert parse_arguments(Config, ["--host", "0.0.0.0", "--token", "x" * 16], "studio").host == "0.0.0.0"
    assert parse_arguments(Config, [], "studio").host == "127.0.0.1"


def test_hostile_requests_get_a_sentence(client: TestClient) -> None:
    """No file of elsewhere, no trace, no answer but 200 to 415."""
    for asked in hostile_requests():
        answer = client.request(asked.method, asked.path, content=asked.body, headers=asked.headers)
        said = f"{asked.method} {asked.path[:90]} {asked.body[:60]!r}: {answer.status_code} {answer.text[:200]!r}"
        assert answer.status_code < 500, said
        assert SECRET not in answer.text, said
        assert "Traceback" not in answer.text, said
        if answer.status_code >= 400 and asked.method != "HEAD" and "range" not in asked.headers:
            assert set(answer.json()) == {"error"}, said
    assert client.get("/api/jobs/000001").status_code == 200


def test_requests_that_no_client_sends(root: Path, tmp_path: Path) -> None:
    """Raw bytes to a real server: it answers or closes, and is there afterwards."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = open_app(write_project(tmp_path / "project"), ("127.0.0.1",))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    typed = b"Content-Type: application/octet-stream\r\n"
    for raw in (
        b"GET /../../secret.txt HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /web/%2e%2e/%2e%2e/secret.txt HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + host + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /api/uploads?name=a.wav HTTP/1.1\r\n" + host + typed + b"Content-Length: 99999999999\r\n\r\nx",
        b"POST /api/uploads?name=a.wav HTTP/1.1\r\n" + host + typed + b"Content-Length: 50\r\n\r\ncut off",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 9 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            assert SECRET.encode() not in connection.recv(65536)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /api HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n")
        assert b" 200 " in connection.recv(65536)
    server.should_exit = True
    thread.join(5)
    assert not [path for path in (tmp_path / "project/studio").rglob("*") if "uploads" in path.parts and path.is_file()]
