"""Requests that mean no good: paths out of the root, bodies that are no JSON, ranges and methods that nobody needs."""

import random
from collections.abc import Iterator
from typing import NamedTuple

REQUESTS = 500
ESCAPES = (
    "../secret.txt", "..%2f..%2fsecret.txt", "%2e%2e/secret.txt", "....//secret.txt", "/etc/passwd", "C:\\s.txt",
    "0001.png%00.txt", "..\\..\\secret.txt", "\u202e", "a" * 3000, "%ff%fe", "id:../secret.txt", "000001", "-1", "",
    "with/../../../jobs.jsonl", "ffffffffffff",
)  # fmt: skip
READ = (
    "/{}", "/web/{}", "/api/{}", "/api/jobs/{}", "/api/jobs/000001/files/{}", "/api/jobs/{}/messages",
    "/api/artefacts/{}", "/api/artefacts/{}/file", "/api/artefacts/{}/report", "/api/datasets/{}/clips",
    "/api/datasets/{}/clips/0/picture", "/api/runs/{}", "/api/runs/{}/samples/step-1/{}", "/api/stages/{}",
    "/api/datasets/{}/overrides/{}", "/api/jobs?before={}&limit={}", "/api/jobs?starred={}",
)  # fmt: skip
CHANGED = (
    "/api/jobs", "/api/jobs/{}/cancel", "/api/jobs/{}/again", "/api/jobs/000001/results/{}", "/api/uploads?name={}",
    "/api/stages/{}/check", "/api/stages/generate/check",
)  # fmt: skip
BODIES = (
    b"", b"{", b"[]", b"null", b'{"a": NaN}', b"[" * 100_000, b'"\\ud800"', b'{"stage": "\\u0000"}', b"\xff\xfe",
    b'{"stage": "generate", "settings": {"base": "/etc/passwd", "prompt": "x"}}',
    b'{"stage": "generate", "settings": {"base": "mini", "prompt": "x", "out": "/tmp/x"}}',
    b'{"stage": "generate", "settings": {"base": "mini", "prompts": "../secret.txt"}}',
    b'{"stage": "generate", "settings": {"base": {"a": 1}, "prompt": ["x"], "lora": {"b": 2}}}',
    b'{"stage": "train", "settings": {"base": "mini", "cache": "id:zzz", "push_to_hub": "me/x"}}',
    b'{"stage": "generate", "settings": {"base": "mini", "prompt": "x"}, "name": "../../x"}',
    b'{"stage": "generate", "settings": {"prompt": 1e999, "seed": 99999999999999999999999999}}',
    b'{"starred": "perhaps"}', b'{"exclude": ""}', b'{"settings": ' + b"1" * 5000 + b"}",
)  # fmt: skip
RANGES = ("bytes=9999999-", "bytes=-1", "bytes=5-2", "lines=1-2", "bytes=0-1,3-4")


class Hostile(NamedTuple):
    """A request."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def hostile_requests() -> Iterator[Hostile]:
    """Yield five hundred requests, drawn by a seed."""
    drawn = random.Random(18)
    for _ in range(REQUESTS):
        changes = drawn.random() < 0.5
        path = drawn.choice(CHANGED if changes else READ).replace("{}", drawn.choice(ESCAPES).replace("#", ""))
        headers = {"content-type": drawn.choice(["application/json", "application/octet-stream"])}
        if drawn.random() < 0.15:
            headers["range"] = drawn.choice(RANGES)
        if drawn.random() < 0.1:
            headers["last-event-id"] = "x" * 100
        method = drawn.choice(["POST", "PUT", "DELETE"] if changes else ["GET", "HEAD", "OPTIONS", "TRACE"])
        body = drawn.choice(BODIES) if changes else b""
        yield Hostile(method, path if path.startswith("/") else "/", body, headers)
