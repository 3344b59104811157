"""A static host, as any will do: folders at paths, which can be stopped."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Host:
    """A host that is running; `asked` are the paths that were asked for."""

    server: ThreadingHTTPServer
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Return where it listens, with a slash at the end."""
        return f"http://127.0.0.1:{self.server.server_port}/"

    def stop(self) -> None:
        """Answer nothing from now on."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    """Answers with the files of `folders`, by the first word of a path."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def __init__(self, *arguments: object, folders: Mapping[str, Path], asked: list[str]) -> None:
        self.folders, self.asked = folders, asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """Return the file of a path."""
        first, _, rest = path.partition("?")[0].strip("/").partition("/")
        return str(self.folders.get(first, Path("/nowhere")) / rest)

    def log_message(self, *_words: object) -> None:
        """Keep the path; say nothing."""
        self.asked.append(self.path)


@contextmanager
def hosted(**folders: Path) -> Iterator[Host]:
    """Yield a host that serves each folder at its name."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folders=folders, asked=asked))
    host = Host(server, asked)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.stop()
        thread.join(timeout=5)
