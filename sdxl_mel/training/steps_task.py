"""A step adapter: a LoRA that makes of a base, or of a base with LoRAs, a model that draws in few unguided steps.

Segments: the way from noise is cut into as many segments as there will be steps, and one straight jump from any point
must land where the guided teacher was at the end of its segment. Latent consistency (LCM-LoRA, arXiv 2311.05556): every
point leads to the same end as the one after it. Both read the teacher's trajectories and never call it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.losses import LOSSES, per_sample
from sdxl_mel.diffusion.noise import uniform_variates
from sdxl_mel.diffusion.samplers import NO_GUIDANCE, Drawing
from sdxl_mel.diffusion.trajectories import Level, joining, parts_of, predicted_of, reach
from sdxl_mel.errors import MismatchError
from sdxl_mel.files.run import DIFFUSERS_NAME, LORA_NAME, RunHeader
from sdxl_mel.files.trajectories import Trajectories, TrajectoriesHeader, Trajectory, open_trajectories
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.lora.actions import remarks
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.models.lora.file import DIFFUSERS_FILE, Lora, LoraHeader
from sdxl_mel.models.lora.scaled import read_loras
from sdxl_mel.record import sha256_file
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.synthesis.attached import AttachedLoras
from sdxl_mel.training.batches import Stream, diffusion_of
from sdxl_mel.training.card import write_card
from sdxl_mel.training.estimate import estimate
from sdxl_mel.training.loop import Results
from sdxl_mel.training.model import Model, compile_blocks, prepared_unet, quick_attention, start_from, write_adapters
from sdxl_mel.training.run import Prepared, Run, carry_out, run_header, start_run
from sdxl_mel.training.steps_settings import Config, ObjectiveName, StepLossSettings
from sdxl_mel.training.task import HELD_OUT, TRAINED, Losses, Mean, share_of
from sdxl_mel.training.trajectories import loras_of

HELD_OUT_SHARE = 4
"""At most one trajectory in so many is held out."""
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0
"""Of the boundary condition of LCM (arXiv 2310.04378, equation 9), as diffusers' LCMScheduler has them."""
SAMPLERS: Mapping[ObjectiveName, Drawing] = {
    "segments": Drawing("ddim", None, NO_GUIDANCE, "trailing"),
    # LCM has a spacing of its own.
    "consistency": Drawing("lcm", None, NO_GUIDANCE),
}
"""How what an objective trains is drawn."""


@dataclass(frozen=True)
class Jumps:
    """Pairs of points of trajectories; tensors have the batch first, `segments` count from the clean end.

    `first` and `lengths`, on the CPU, are the points where jumps start and how many points they skip; those that are
    `rolled` start from where the adapter itself got to from the `noise`.
    """

    slots: tuple[int, ...]
    sources: tuple[str, ...]
    first: Tensor
    lengths: Tensor
    rolled: Tensor
    noise: Tensor
    start: Tensor
    end: Tensor
    at: Level
    to: Level
    timesteps: Tensor
    end_timesteps: Tensor
    segments: Tensor
    text: TextEmbeddings

    def __len__(self) -> int:
        return len(self.slots)

    def on(self, device: torch.device, dtype: torch.dtype) -> "Jumps":
        """Return the pairs on a device, the text in the dtype of the UNet."""
        moved = {
            name: getattr(self, name).to(device) for name in ("noise", "start", "end", "timesteps", "end_timesteps")
        }
        text = TextEmbeddings(*(each.to(device, dtype) for each in self.text))
        return replace(
            self, **moved, segments=self.segments.to(device), at=self.at.on(device), to=self.to.on(device), text=text
        )


class Pair(NamedTuple):
    """A jump from one point of a trajectory to a later one; `rolled`, it starts where the adapter itself got to."""

    trajectory: Trajectory
    first: int
    last: int
    rolled: bool = False


class JumpData:
    """The pairs of a run, drawn slot by slot."""

    def __init__(
        self,
        source: Trajectories,
        trained: Sequence[Trajectory],
        *,
        draw_steps: Sequence[int],
        objective: ObjectiveName,
        starts: float,
        rollouts: float,
        batch: int,
        seed: int,
    ) -> None:
        self.source, self.trained, self.objective = source, trained, objective
        self.draw_steps, self.starts, self.rollouts = tuple(draw_steps), starts, rollouts
        self.size, self.seed = batch, seed
        self.grid = source.header.grid
        self.stream = Stream("trajectories", [1] * len(trained), seed)
        for steps in self.draw_steps:
            self.grid.segment(steps)

    def batch(self, step: int, places: range) -> Jumps:
        """Return the part of a step's batch at `places`; a step's starts are spread evenly over the segments."""
        spread = uniform_variates(self.seed, step, places, self.size, True)
        slots = [step * self.size + place for place in places]
        pairs = [
            Pair(self.trained[self.stream[slot]], *self._points(slot, float(place)))
            for slot, place in zip(slots, spread)
        ]
        return self.jumps(pairs, slots)

    def _points(self, slot: int, place: float) -> tuple[int, int, bool]:
        """Return the points of a slot's jump and whether it is rolled; `place`, 0 to 1, says where the first lies."""
        generator = numpy_generator(self.seed, "jump", slot)
        if self.objective == "consistency":
            first = min(int(place * len(self.grid)), len(self.grid) - 1)
            return first, first + 1, False
        steps = self.draw_steps[int(generator.integers(len(self.draw_steps)))]
        length = self.grid.segment(steps)
        begin = min(int(place * steps), steps - 1) * length
        if begin and self.rollouts and generator.random() < self.rollouts:
            return begin, begin + length, True
        within = 0 if generator.random() < self.starts else int(generator.integers(length))
        return begin + within, begin + length, False

    def judged(self, trajectories: Sequence[Trajectory]) -> list[Pair]:
        """Return every step of drawing some trajectories: from the point where it begins to where it should lead."""
        steps = self.draw_steps[0]
        length = self.grid.segment(steps)
        one_end = self.objective == "consistency"
        return [
            Pair(each, first * length, len(self.grid) if one_end else (first + 1) * length)
            for each in trajectories
            for first in range(steps)
        ]

    def jumps(self, pairs: Sequence[Pair], slots: Sequence[int]) -> Jumps:
        """Return jumps from a point of a trajectory to a later one."""
        found = [self.source.states(pair.trajectory, (0, pair.first, pair.last)) for pair in pairs]
        noise, start, end = (torch.stack(each) for each in zip(*found))
        texts = [self.source.text(pair.trajectory.text) for pair in pairs]
        first, last = (torch.tensor([getattr(pair, name) for pair in pairs]) for name in ("first", "last"))
        timesteps = torch.tensor([*self.grid.timesteps, 0])
        return Jumps(
            slots=tuple(slots),
            sources=tuple(pair.trajectory.prompt for pair in pairs),
            first=first,
            lengths=last - first,
            rolled=torch.tensor([pair.rolled for pair in pairs]),
            noise=noise,
            start=start,
            end=end,
            at=self.grid.level(first),
            to=self.grid.level(last),
            timesteps=timesteps[first],
            end_timesteps=timesteps[last],
            segments=(len(self.grid) - 1 - first) // self.grid.segment(self.draw_steps[0]),
            text=TextEmbeddings(*(torch.stack(part) for part in zip(*texts))),
        )


class StepsTask:
    """A step adapter as a Task (see `training.task.Task`)."""

    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        model: Model,
        data: JumpData,
        *,
        loss: StepLossSettings,
        rate: float,
        header: LoraHeader,
        judged: Mapping[str, Sequence[Trajectory]],
        accelerator: Accelerator,
    ) -> None:
        self.model, self.data, self.loss, self.rate, self.header = model, data, loss, rate, header
        self.trajectories, self.accelerator = judged, accelerator
        self.parameters = dict(model.adapters.named_parameters())
        self.judged = tuple(judged)
        self.judged_by = "squared error of where a step lands"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all adapters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> Jumps:
        """Return points of trajectories, and where they lead."""
        return self.data.batch(step, places)

    def losses(self, batch: Jumps, step: int) -> Losses:
        """Return the losses of a batch."""
        batch = batch.on(self.model.device, self.model.dtype)
        found, wanted, scale = self._consistency(batch) if self._consistent else self._segment(batch)
        delta = torch.full((len(batch),), self.loss.delta, device=self.model.device)
        weight = scale if self.loss.measured == "landing" else 1.0
        each = LOSSES[self.loss.kind].of_samples(found * weight, wanted * weight, delta, "mse")
        landing = per_sample(((found.detach() - wanted) * scale).square())
        segments = F.one_hot(batch.segments, self.data.draw_steps[0]).float()
        logged = {"squared_error": Mean.of(landing), "by_segment": Mean(landing @ segments, segments.sum(dim=0))}
        return Losses(each, batch.sources, logged)

    @property
    def _consistent(self) -> bool:
        return self.data.objective == "consistency"

    def _segment(self, batch: Jumps) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is predicted, what would land on the end, and how far an error of it moves the landing."""
        prediction = self.data.source.header.prediction
        start = self._rolled(batch)
        found = self._predicted(start, batch.timesteps, batch.text)
        wanted = predicted_of(joining(start, batch.at, batch.end, batch.to), batch.at, prediction)
        return found, wanted, reach(batch.at, batch.to, prediction)

    @torch.no_grad()
    def _rolled(self, batch: Jumps) -> Tensor:
        """Return where the jumps start: on the trajectory, or where the adapter gets to from its noise."""
        if not bool(batch.rolled.any()):
            return batch.start
        grid, device, prediction = self.data.grid, self.model.device, self.data.source.header.prediction
        latents = torch.where(batch.rolled.to(device).view(-1, 1, 1, 1), batch.noise, batch.start)
        points = torch.zeros_like(batch.first)
        while len(some := (batch.rolled & (points < batch.first)).nonzero().flatten()):
            at, to = grid.level(points[some]).on(device), grid.level(points[some] + batch.lengths[some]).on(device)
            timesteps = torch.tensor([grid.timesteps[point] for point in points[some]], device=device)
            there = some.to(device)
            text = TextEmbeddings(*(each[there] for each in batch.text))
            predicted = self._predicted(latents[there], timesteps, text)
            latents[there] = parts_of(latents[there], predicted, at, prediction).at(to)
            points[some] += batch.lengths[some]
        return latents

    def _consistency(self, batch: Jumps) -> tuple[Tensor, Tensor, Tensor]:
        """Return the clean latents to which a point and the one after it lead."""
        found = self._end(batch.start, batch.at, batch.timesteps, batch.text)
        with torch.no_grad():
            later = self._end(batch.end, batch.to, batch.end_timesteps, batch.text)
        # The clean end itself leads nowhere else.
        clean = (batch.end_timesteps == 0).view(-1, 1, 1, 1)
        return found, torch.where(clean, batch.end, later), torch.ones_like(batch.at.signal)

    def _end(self, latents: Tensor, level: Level, timesteps: Tensor, text: TextEmbeddings) -> Tensor:
        """Return where a consistency model says that latents lead: equation 9 of LCM."""
        predicted = self._predicted(latents, timesteps, text)
        clean = parts_of(latents, predicted, level, self.data.source.header.prediction).clean
        scaled = (timesteps.float() * TIMESTEP_SCALING).view(-1, 1, 1, 1)
        keep = SIGMA_DATA**2 / (scaled.square() + SIGMA_DATA**2)
        return keep * latents + scaled / (scaled.square() + SIGMA_DATA**2).sqrt() * clean

    def _predicted(self, latents: Tensor, timesteps: Tensor, text: TextEmbeddings) -> Tensor:
        return self.model.predict_at(latents.to(self.model.dtype), timesteps, text).float()

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the squared error of each step's landing, lowest noise first; each starts where the teacher was."""
        pairs = self.data.judged(self.trajectories[name])
        own = share_of(len(pairs), self.accelerator.process_index, self.accelerator.num_processes)
        sums = torch.zeros(self.data.draw_steps[0], device=self.model.device)
        for start in range(own.start, own.stop, self.data.size):
            piece = range(start, min(start + self.data.size, own.stop))
            batch = self.data.jumps([pairs[index] for index in piece], piece).on(self.model.device, self.model.dtype)
            if self._consistent:
                errors = self._end(batch.start, batch.at, batch.timesteps, batch.text) - batch.end
            else:
                found, wanted, scale = self._segment(batch)
                errors = (found - wanted) * scale
            sums.index_add_(0, batch.segments, per_sample(errors.square()))
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, reduction="sum")
        return [float(value) / len(self.trajectories[name]) for value in sums]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the adapter to one file, in kohya's names."""
        write_adapters(self.model.adapters, self.header, path, step, "kohya")

    def save_result(self, folder: Path, step: int) -> None:
        """Write the adapter in both dialects."""
        write_adapters(self.model.adapters, self.header, folder / LORA_NAME, step, "kohya")
        write_adapters(self.model.adapters, self.header, folder / DIFFUSERS_NAME, step, "diffusers")


def train_steps(config: Config) -> Results | None:
    """Train a step adapter, or resume, and return what it came to; None for a dry run. Every process runs this."""
    run = start_run(config)
    source = open_trajectories(config.trajectories)
    base = open_base(config.base, ("unet",), run.dtype)
    header = header_of_run(config, run, base, source.header)
    AttachedLoras(base, keep=False).replace(read_loras(config.lora))
    task = open_task(config, run, base, source, header)
    spec, processes = source.header.spec, run.accelerator.num_processes
    expected = estimate(task.model, spec, config.loop, processes) if run.main else None
    notes = remarks(Lora(task.model.adapters.to_modules(), task.header), "kohya") if run.main else ()
    if config.hardware.compile:
        compile_blocks(task.model.unet)
    how = f"in {config.draw_steps[0]} steps without guidance what it draws at guidance {source.header.guidance:g}"
    data = task.data
    what = f"{config.steps} steps of {config.batch} on {len(data.trained)} trajectories of {len(data.grid)} points"
    card = f"A step adapter, with which `{config.base}` draws {how}"
    prepared = Prepared(
        task,
        header,
        lambda header: write_card(config.out, header, card, notes),
        told=[f"{config.out.name}: {what}, to draw {how}"],
        notes=notes,
        expected=expected,
        less=f"--adapter.rank {max(1, config.adapter.rank // 2)} or a smaller spectrogram preset",
        around=quick_attention(task.model),
    )
    return carry_out(run, prepared)


def header_of_run(config: Config, run: Run, base: Base, made: TrajectoriesHeader) -> RunHeader:
    """Return what run.json will say.

    Raises MismatchError unless this base with these LoRAs drew the trajectories, and a resumed run is still the same.
    """
    where = str(config.trajectories)
    if base.spec is not None:
        require_equal(base.spec, made.spec, f"base {config.base}", where)
    parts = {str(part): base.identity_of(part) for part in base.family.parts if part != "vae"}
    other = sorted(part for part in {*parts, *made.identity} if parts.get(part) != made.identity.get(part))
    if other:
        raise MismatchError(
            f"{where}: drawn by another teacher than {config.base}: its {', '.join(other)} differ; give the base that "
            "drew them, or draw them with this one"
        )
    loras = loras_of(read_loras(config.lora))
    if loras != made.loras:
        raise MismatchError(
            f"{where}: drawn with {len(made.loras)} LoRAs, found {len(loras)} here or others; give --lora as sdxl-mel "
            "trajectories had it, in the same order and scales"
        )
    inputs = {"trajectories": sha256_file(config.trajectories / "trajectories.json")} | parts
    inputs |= {f"lora {place}": digest for place, digest in loras.items()}
    if (init := config.adapter.init) is not None:
        inputs["init"] = sha256_file(init / DIFFUSERS_FILE if init.is_dir() else init)
    if made.prediction != "epsilon":
        inputs["prediction"] = made.prediction
    return run_header(run, spec=made.spec, anchor=made.anchor, clip_skip=made.clip_skip, identity=parts, inputs=inputs)


def open_task(config: Config, run: Run, base: Base, source: Trajectories, header: RunHeader) -> StepsTask:
    """Return the adapter to be trained: fresh, or that of `adapter.init`. Raises InputError for steps off the grid."""
    diffusion_of(base)
    held_out, trained = parted(source.header.trajectories, config.validation.clips if config.validation.every else 0)
    data = JumpData(
        source,
        trained,
        draw_steps=config.draw_steps,
        objective=config.objective,
        starts=config.starts,
        rollouts=config.rollouts,
        batch=config.batch,
        seed=config.seed,
    )
    adapter = config.adapter
    adapters = attach(
        {"unet": prepared_unet(base.unet, config.hardware, run.device)},
        targets=adapter.targets,
        rank=adapter.rank,
        alpha=adapter.alpha_or_rank,
        rank_patterns=adapter.rank_patterns,
        seed=config.seed,
    )
    if adapter.init is not None:
        start_from(adapter.init, adapters, base, header.spec, header.identity)
    spec = source.header.spec
    time_ids = base.family.time_ids(spec.n_mels, spec.width)
    model = Model(
        unet=base.unet,
        adapters=adapters,
        time_ids=None if time_ids is None else time_ids.to(run.device),
        dtype=base.unet.dtype,
        device=run.device,
    )
    return StepsTask(
        model,
        data,
        loss=config.loss,
        rate=config.optimizer.rate,
        header=header_of_adapter(config, header, base),
        judged={HELD_OUT: held_out, TRAINED: trained[: len(held_out)]} if held_out else {},
        accelerator=run.accelerator,
    )


def parted(trajectories: Sequence[Trajectory], held_out: int) -> tuple[Sequence[Trajectory], Sequence[Trajectory]]:
    """Return the trajectories that are held out, the first, at most a quarter of all, and those that are trained on."""
    count = min(held_out, len(trajectories) // HELD_OUT_SHARE)
    return trajectories[:count], trajectories[count:]


def header_of_adapter(config: Config, header: RunHeader, base: Base) -> LoraHeader:
    """Return what the file of the adapter will say."""
    training = {
        "learning_rate": f"{config.optimizer.rate:g}",
        "optimizer": config.optimizer.name,
        "steps": str(config.steps),
        "total_batch_size": str(config.batch),
        "seed": str(config.seed),
        "loss_type": config.loss.kind,
        "clip_skip": str(header.clip_skip),
    }
    return LoraHeader(
        spec=header.spec,
        anchor=header.anchor,
        clip_skip=header.clip_skip,
        base=header.identity,  # type: ignore[arg-type]
        record=header.record,
        training=training,
        architecture=base.architecture,
        drawing=replace(SAMPLERS[config.objective], steps=config.draw_steps[0]),
        prediction=base.scheduler.config.prediction_type,
    )
