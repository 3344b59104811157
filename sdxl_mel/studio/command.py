"""`sdxl-mel studio`: make music, datasets and LoRAs in a page of the browser, on this machine."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import MissingError

EXAMPLES = """\
  sdxl-mel studio --open
  sdxl-mel studio --root my-project --port 8080
  sdxl-mel studio --host 192.168.1.20 --token "a long secret\""""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Config(StageConfig):
    """Serve a page for the browser in which music is made, datasets are looked through and LoRAs are trained.

    Everything stays on this machine; training goes on when the page or the server is closed.
    """

    root: Path = Path()
    """folder of the project; nothing outside it is read or written"""
    port: int = Field(7861, ge=0, le=65535)
    """port of the page; 0 = any that is free"""
    open: bool = False
    """open the page in the browser"""
    host: Annotated[str, Show.ADVANCED] = "127.0.0.1"
    """address to listen on; one that others can reach needs --token"""
    token: Annotated[str | None, Show.ADVANCED] = Field(None, min_length=16)
    """secret that every request must state; the page is then opened as /?token=..."""
    names: Annotated[tuple[str, ...], Show.ADVANCED] = ()
    """host names by which the server may be asked, beside --host and those of this machine"""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.host not in LOOPBACK and self.token is None:
            raise ValueError(
                f"--host {self.host} can be reached from other machines; give --token a secret of 16 characters or more"
            )
        return self


class Report(StageReport):
    """Where the page was."""

    address: str

    def summary(self) -> str:
        """Return what stays."""
        return f"the studio at {self.address} is closed; what it was drawing goes on when it is opened again"


def run(config: Config) -> Report:
    """Serve the page until Ctrl-C. Raises MissingError without the packages of the extra `studio`."""
    try:
        from sdxl_mel.studio.server import serve
    except ModuleNotFoundError as error:
        raise MissingError(
            f"sdxl-mel studio: {error.name} is not there; pip install 'sdxl-mel[studio]' (on Linux, macOS or WSL)"
        ) from error
    address = serve(
        config.root, config.host, config.port, token=config.token, names=config.names, open_page=config.open
    )
    return Report(address=address)
