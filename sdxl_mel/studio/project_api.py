"""The routes of what lies below the root: artefacts, uploads, datasets, runs and scores."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sdxl_mel.config import read_toml
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.files.describe import description
from sdxl_mel.files.evaluation import read_evaluation
from sdxl_mel.files.overrides import NAME, Override, write_overrides
from sdxl_mel.record import sha256_bytes
from sdxl_mel.studio import runs, uploads
from sdxl_mel.studio.artefacts import Artefact
from sdxl_mel.studio.datasets import Filter, Shown, overrides_of, stamp_of
from sdxl_mel.studio.forms import Kind, stated
from sdxl_mel.studio.guard import REPORT_POLICY
from sdxl_mel.studio.history import UnknownError
from sdxl_mel.studio.job import ENDED
from sdxl_mel.studio.requests import body_of, flag, limited, number
from sdxl_mel.studio.studio import Studio

UPLOADS = "uploads"
SOUNDS = ".sounds"
REPORTS = ("report.html", "variations.html", "ab.html")
"""What commands call the page beside their results."""
MOST_CLIPS = 200
MOST_SHOWN = 4
"""Datasets that are kept in memory."""


class ProjectApi:
    """Answers what pages and scripts ask of the project."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._shown: dict[Path, Shown] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/artefacts", self.artefacts),
            Route("/api/artefacts/{id}", self.artefact),
            Route("/api/artefacts/{id}/file", self.file),
            Route("/api/artefacts/{id}/sound", self.sound),
            Route("/api/artefacts/{id}/report", self.report),
            Route("/api/uploads", self.upload, methods=["POST"]),
            Route("/api/datasets/{id}", self.dataset),
            Route("/api/datasets/{id}/clips", self.clips),
            Route("/api/datasets/{id}/clips/{number:int}/picture", self.clip_picture),
            Route("/api/datasets/{id}/clips/{number:int}/sound", self.clip_sound),
            Route("/api/datasets/{id}/rejects", self.rejects),
            Route("/api/datasets/{id}/overrides", self.overrides),
            Route("/api/datasets/{id}/overrides/{track:path}", self.override, methods=["PUT"]),
            Route("/api/runs", self.runs),
            Route("/api/runs/{id}", self.run),
            Route("/api/runs/{id}/metrics", self.metrics),
            Route("/api/runs/{id}/samples/{step}/{name}", self.sample),
            Route("/api/evaluations", self.evaluations),
        ]

    async def artefacts(self, request: Request) -> Response:
        """List what is below the root, the newest first."""
        kind = request.query_params.get("kind")
        found = await run_in_threadpool(self.studio.artefacts.find)
        return JSONResponse({"artefacts": [_listed(each) for each in found if kind in (None, each.kind)]})

    async def artefact(self, request: Request) -> Response:
        """Say what `inspect` says of an artefact."""
        artefact, path = self._artefact(request)
        if artefact.kind == "config":
            settings = stated("train", await run_in_threadpool(read_toml, path), self._id_of)
            return JSONResponse(_listed(artefact) | {"settings": settings})
        if artefact.kind in ("folder", "results", "table", "comparison"):
            return JSONResponse(_listed(artefact))
        return JSONResponse(_listed(artefact) | await run_in_threadpool(description, path))

    async def file(self, request: Request) -> Response:
        """Send a sound or a picture, or a part of it."""
        _, path = self._artefact(request, "sound", "picture")
        return FileResponse(path)

    async def sound(self, request: Request) -> Response:
        """Send a sound, or that of a picture."""
        artefact, path = self._artefact(request, "sound", "picture")
        return FileResponse(path) if artefact.kind == "sound" else await self._sound_of(path)

    async def report(self, request: Request) -> Response:
        """Send the report of an artefact, which may run what is in it and reach nothing."""
        _, path = self._artefact(request)
        page = next((self._inside(path / name) for name in REPORTS if (path / name).is_file()), None)
        if page is None:
            raise UnknownError(f"{path.name}: has no report")
        return FileResponse(page, headers={"content-security-policy": REPORT_POLICY})

    async def upload(self, request: Request) -> Response:
        """Take a file, and say what it is."""
        name = request.query_params.get("name", "")
        uploads.name_of(name)
        pieces = limited(request, uploads.MOST_BYTES)
        path, found = await uploads.taken(self.studio.folder / UPLOADS, name, pieces, self.studio.root)
        self.studio.tell_artefacts()
        artefact = self.studio.artefacts.get(self.studio.artefacts.identifier(path))
        return JSONResponse(_listed(artefact) | found, 201)

    async def dataset(self, request: Request) -> Response:
        """Say what a dataset is."""
        artefact, path = self._artefact(request, "dataset")
        shown = await self._dataset(path)
        return JSONResponse(_listed(artefact) | shown.overview())

    async def clips(self, request: Request) -> Response:
        """List the clips of a dataset that pass a filter."""
        artefact, path = self._artefact(request, "dataset")
        shown, query = await self._dataset(path), request.query_params
        wanted = Filter(query.get("split"), query.get("track"), query.get("phrase"), flag(request, "doubt"))
        numbers, overrides = shown.clips(wanted), overrides_of(path)
        first, count = number(request, "offset", 0), number(request, "limit", 50, MOST_CLIPS)
        clips = []
        for each in numbers[first : first + count]:
            place = f"/api/datasets/{artefact.id}/clips/{each}"
            urls = {"picture": f"{place}/picture", "sound": f"{place}/sound"}
            clips.append(shown.clip(each, overrides) | urls)
        return JSONResponse({"total": len(numbers), "clips": clips})

    async def clip_picture(self, request: Request) -> Response:
        """Send the picture of a clip."""
        return FileResponse(await self._clip_path(request))

    async def clip_sound(self, request: Request) -> Response:
        """Send the sound of a clip's picture, which is what is trained on."""
        return await self._sound_of(await self._clip_path(request))

    async def rejects(self, request: Request) -> Response:
        """List what was left out."""
        _, path = self._artefact(request, "dataset")
        return JSONResponse({"rejects": (await self._dataset(path)).rejects(request.query_params.get("reason"))})

    async def overrides(self, request: Request) -> Response:
        """List the edits of a dataset."""
        artefact, path = self._artefact(request, "dataset")
        tracks = overrides_of(path).model_dump(mode="json", exclude_none=True)["tracks"]
        return JSONResponse({"file": f"{artefact.name}/{NAME}", "overrides": tracks})

    async def override(self, request: Request) -> Response:
        """Edit a track of a dataset; it is as edited when the dataset is prepared again."""
        artefact, path = self._artefact(request, "dataset")
        track = request.path_params["track"]
        override = await body_of(request, Override)
        (await self._dataset(path)).require_track(track)
        write_overrides(path / NAME, overrides_of(path).edited(track, override))
        stated = override.model_dump(mode="json", exclude_none=True)
        self.studio.events.tell("override", {"dataset": artefact.id, "track": track, "override": stated})
        return JSONResponse(stated)

    async def runs(self, _request: Request) -> Response:
        """List the training runs, the newest first."""
        found = await run_in_threadpool(self.studio.artefacts.find)
        listed = []
        for each in found:
            if each.kind == "run":
                try:
                    about = self._run_overview(each, self.studio.artefacts.path(each))
                except SdxlMelError as error:
                    about = _listed(each) | {"error": str(error)}
                kept = ("id", "name", "modified", "job", "state", "step", "steps", "error")
                listed.append({key: about[key] for key in kept if key in about})
        return JSONResponse({"runs": listed})

    async def run(self, request: Request) -> Response:
        """Say what a run is and where it stands."""
        artefact, path = self._artefact(request, "run")
        found = await run_in_threadpool(self.studio.artefacts.find)
        about = self._run_overview(artefact, path)
        about["checkpoints"] = [
            {"id": each.id, "step": int(Path(each.name).stem.removeprefix("step-"))}
            for each in sorted(found, key=lambda each: each.name)
            if each.kind == "lora" and Path(each.name).parent == Path(artefact.name) / "checkpoints"
        ]
        about["loras"] = [
            each.id for each in found if each.kind == "lora" and Path(each.name).parent == Path(artefact.name)
        ]
        samples = runs.samples(path)
        for row in samples:
            for each in row["results"]:
                for kind in ("picture", "sound"):
                    each[kind] = each[kind] and f"/api/runs/{artefact.id}/samples/{each[kind]}"
        return JSONResponse(about | {"samples": samples})

    async def metrics(self, request: Request) -> Response:
        """Send the curves of a run, or what is new of them."""
        _, path = self._artefact(request, "run")
        after = number(request, "after", 0) if "after" in request.query_params else -1
        return JSONResponse({"rows": await run_in_threadpool(runs.metrics, path, after)})

    async def sample(self, request: Request) -> Response:
        """Send the picture or the sound of a sample."""
        _, path = self._artefact(request, "run")
        sample = runs.sample_file(path, request.path_params["step"], request.path_params["name"])
        return FileResponse(self._inside(sample))

    async def evaluations(self, _request: Request) -> Response:
        """List evaluations and comparisons with their numbers, the newest first."""
        found = await run_in_threadpool(self.studio.artefacts.find)
        rows = [each for each in found if each.kind in ("evaluation", "comparison")]
        return JSONResponse({"evaluations": [await run_in_threadpool(self._scores, each) for each in rows]})

    def _scores(self, artefact: Artefact) -> dict[str, Any]:
        path = self.studio.artefacts.path(artefact)
        about = _listed(artefact)
        about["report"] = f"/api/artefacts/{artefact.id}/report" if (path / REPORTS[0]).is_file() else None
        if artefact.kind == "comparison":
            return about | {"text": (path / "comparison.txt").read_text(encoding="utf-8", errors="replace")}
        try:
            evaluation = read_evaluation(path)
        except SdxlMelError as error:
            return about | {"error": str(error)}
        metrics = {name: each.model_dump(mode="json") for name, each in evaluation.metrics.items()}
        for each in metrics.values():
            each.pop("by_prompt")
        absent = [each.model_dump() for each in evaluation.absent]
        sets = {name: each.model_dump(exclude={"files"}) for name, each in evaluation.sets.items()}
        return about | {"metrics": metrics, "absent": absent, "warnings": list(evaluation.warnings), "sets": sets}

    def _run_overview(self, artefact: Artefact, path: Path) -> dict[str, Any]:
        job = next((job for job in reversed(self.studio.history.jobs.values()) if job.out == artefact.name), None)
        running = job is not None and job.state not in ENDED and job.state != "waiting"
        return _listed(artefact) | {"job": job and job.id} | runs.overview(path, running)

    async def _clip_path(self, request: Request) -> Path:
        _, path = self._artefact(request, "dataset")
        item = (await self._dataset(path)).item(request.path_params["number"])
        return self._inside(path / item.file)

    def _inside(self, path: Path) -> Path:
        """Return where a file of an artefact lies. Raises InputError where a link leads it out of the root."""
        return self.studio.artefacts.below(path.relative_to(self.studio.root).as_posix())

    async def _sound_of(self, picture: Path) -> Response:
        """Return the sound of a picture, made once."""
        digest = await run_in_threadpool(lambda: sha256_bytes(picture.read_bytes()))
        sound = self.studio.folder / SOUNDS / f"{digest}.wav"
        await self.studio.sound_of(picture, sound)
        return FileResponse(sound)

    async def _dataset(self, path: Path) -> Shown:
        shown = self._shown.get(path)
        if shown is None or shown.stamp != stamp_of(path):
            shown = self._shown[path] = await run_in_threadpool(Shown, path)
            while len(self._shown) > MOST_SHOWN:
                del self._shown[next(iter(self._shown))]
        return shown

    def _id_of(self, value: str) -> str | None:
        """Return what a form has for a file that a config names, None for one that is not below the root."""
        if value == "mini":
            return value
        path = (self.studio.root / value).resolve()
        if not (path.exists() and path.is_relative_to(self.studio.root)):
            return None
        return f"id:{self.studio.artefacts.identifier(path)}"

    def _artefact(self, request: Request, *kinds: Kind) -> tuple[Artefact, Path]:
        try:
            artefact = self.studio.artefacts.get(request.path_params["id"])
        except InputError as error:
            raise UnknownError(str(error)) from error
        if kinds and artefact.kind not in kinds:
            raise InputError(f"{artefact.name}: {artefact.kind}; expected {' or '.join(kinds)}")
        return artefact, self.studio.artefacts.path(artefact)


def _listed(artefact: Artefact) -> dict[str, Any]:
    modified = datetime.fromtimestamp(artefact.modified, UTC).isoformat(timespec="milliseconds")
    return asdict(artefact) | {"modified": modified}
