"""The drawing process: it holds the models between the jobs that it is given, and ends when the server does.

`python -m sdxl_mel.studio.worker` reads and writes the lines of `messages` on stdin and stdout.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from sdxl_mel.arrays import Float
from sdxl_mel.commands import COMMANDS
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.execution import stop_if_asked, stoppable
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.results import Entry
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.progress import Advanced, Event, Message, showing
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.studio.blocks import Blocks
from sdxl_mel.studio.forms import settings_model
from sdxl_mel.studio.messages import format_message, parse_message
from sdxl_mel.studio.preview import LatentMap, data_url, fit
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.results import Step
from sdxl_mel.synthesis.warm import WarmBase
from sdxl_mel.synthesis.watch import Watch, watching

MOST_PREVIEWS = 4
PROGRESS_EVERY_SECONDS = 0.1


class Worker:
    """Does one job after the other; what it has to say of them goes to `out`."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.warm = WarmBase()
        self._speaking = threading.Lock()
        self.stopped: set[str] = set()
        self._map: tuple[Any, LatentMap] | None = None

    def say(self, event: str, job: str | None = None, **more: Any) -> None:
        """Write a message."""
        with self._speaking:
            self.out.write(format_message({"event": event, "job": job, **more}))
            self.out.flush()

    def do(self, message: Mapping[str, Any]) -> None:
        """Do a job to its end, whatever that is."""
        job = message["job"]
        try:
            with showing(self._sink(job)), stoppable(partial(self.stop_if_told, job)):
                more = self.draw(message) if message["do"] == "draw" else self.sound(message)
            self.say("ended", job, state="finished", **more)
        except KeyboardInterrupt:
            self.say("ended", job, state="cancelled")
        except (SdxlMelError, MemoryError) as error:
            self.say("ended", job, state="failed", error=str(error) or "out of memory; ask for less at once")
        except OSError as error:
            self.say("ended", job, state="failed", error=f"{error.filename or job}: {error.strerror or error}")

    def draw(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Draw what the settings of a command ask for; returns what is to be said at the end."""
        job, blocks, folder = message["job"], Blocks(Path(message["blocks"])), Path(message["folder"])
        command = COMMANDS[message["stage"]].load()
        shown = 0.0

        def open_generator(*arguments: Any, **opening: Any) -> Generator:
            generator = self.warm.open(*arguments, **opening)
            base, spec = generator.models.base.name, generator.spec.model_dump(mode="json")
            self.say("opened", job, base=base, spec=spec)
            return generator

        def on_step(step: Step) -> None:
            nonlocal shown
            stop_if_asked()
            now = time.monotonic()
            if now - shown >= PROGRESS_EVERY_SECONDS or step.number == step.total:
                shown = now
                self.say("step", job, number=step.number, total=step.total, previews=self._previews(step.latents))

        def on_sound(file: Path, samples: Float, rate: int) -> None:
            stop_if_asked()
            self.say("block", job, block=blocks.write(name_of(file.relative_to(folder)), samples, rate))

        def on_result(place: Path, entry: Entry, seams: Sequence[float]) -> None:
            files = {"picture": entry.picture, "sound": entry.sound}
            below = {kind: (place / file).relative_to(folder).as_posix() for kind, file in files.items() if file}
            result = {**entry.model_dump(mode="json"), **below, "seams": list(seams)}
            self.say("result", job, result={"name": name_of(Path(below["picture"]).with_suffix("")), **result})

        with watching(Watch(on_step, on_sound, on_result)):
            report = command.run(settings_model(message["stage"]).model_validate(message["settings"]), open_generator)
        left_out = [f"not used: {each.what}: {each.why}" for each in report.skipped]
        return {"notes": [*getattr(report, "notes", ()), *left_out], "summary": report.summary()}

    def stop_if_told(self, job: str) -> None:
        """Raise KeyboardInterrupt for a job that was told to stop."""
        if job in self.stopped:
            raise KeyboardInterrupt

    def sound(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Write the sound of a picture, by the fast method."""
        picture = read_spectrogram(Path(message["picture"]))
        samples = invert(picture.levels, picture.spec, method="fast")
        write_audio(Path(message["sound"]), samples, picture.spec.sample_rate, spec=picture.spec)
        return {}

    def _generator(self) -> Generator:
        assert self.warm.generator is not None
        return self.warm.generator

    def _previews(self, latents: Tensor) -> list[str]:
        """Return a small picture of each tile that is being drawn; a map is fitted once for every VAE."""
        generator = self._generator()
        vae = generator.models.base.vae
        if self._map is None or self._map[0] is not vae:
            with generator.models.working("vae") as working:
                self._map = (vae, fit(working, generator.spec))
        some = latents[:MOST_PREVIEWS].float().cpu().numpy()
        return [data_url(self._map[1].picture(each)) for each in some]

    def _sink(self, job: str) -> Any:
        last = 0.0

        def sink(event: Event) -> None:
            nonlocal last
            if isinstance(event, Message):
                if not event.detail:
                    self.say("message", job, text=event.text)
            elif isinstance(event, Advanced):
                stop_if_asked()
                now = time.monotonic()
                if now - last >= PROGRESS_EVERY_SECONDS or event.done == event.total:
                    last = now
                    facts = asdict(event)
                    del facts["job"]
                    self.say("progress", job, progress=facts)

        return sink


def name_of(file: Path) -> str:
    """Return the name of a result, "0001" or "with-0001", by its file below the job's folder without the suffix."""
    return "-".join(file.parts)


def main() -> None:
    """Do what stdin asks for until it ends."""
    # What libraries print must not get between the messages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker(out)
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            message = parse_message(line)
            if message["do"] == "stop":
                worker.stopped.add(message["job"])
            else:
                worker.stopped.discard(message["job"])
                waiting.put(message)
        # The server is gone. What was being drawn is drawn again by the next one; results are whole or not there.
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    worker.say("ready")
    while True:
        worker.do(waiting.get())


if __name__ == "__main__":
    main()
