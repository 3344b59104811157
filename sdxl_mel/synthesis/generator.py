"""The Generator: a base opened once, drawn from many times, with LoRAs attached and detached in between."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Self

from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.captions.tokens import TokenCounter
from sdxl_mel.devices import find_device
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.samplers import Drawing, SamplerPreset, Sampling, Settled, is_few_step, settle
from sdxl_mel.errors import InputError
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import DTYPES, PARTS, TEXT_ENCODERS, precision_of
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.scaled import ScaledLora, read_loras
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import MelSpec, named_spec
from sdxl_mel.sound.stitching import scored_seams
from sdxl_mel.synthesis.attached import AttachedLoras
from sdxl_mel.synthesis.best_of import Choice, Judge, choose
from sdxl_mel.synthesis.drawing import Drawer, Models, encode_texts
from sdxl_mel.synthesis.jobs import Fitting, Job, Prompts, plan_jobs
from sdxl_mel.synthesis.layout import Layout, lay_out
from sdxl_mel.synthesis.refining import Refining, refining_with
from sdxl_mel.synthesis.results import Result, Step, candidate_seed
from sdxl_mel.synthesis.settings import Length, Precision
from sdxl_mel.synthesis.stack import ALWAYS, Acting, chosen_layers, parse_acting, without_unet
from sdxl_mel.synthesis.trained import Stated, Trained, trained_with


class Generator:
    """A base that draws pictures; `open` opens one, the constructor takes one whose parts are in memory already.

    `header` is what the base says of itself (None = what its files say), and what is `stated` holds where neither it
    nor a LoRA says anything. Parts named in `resting` lie in the main memory while they do not work. Not `weighted`,
    texts are read as training captions are.
    """

    def __init__(
        self,
        base: Base,
        *,
        header: LoraHeader | None = None,
        stated: Stated | None = None,
        loras: Sequence[ScaledLora] = (),
        device: str = "cpu",
        resting: Collection[str] = (),
        keep_base: bool = True,
        weighted: bool = True,
        refining: Refining | None = None,
    ) -> None:
        self.weighted, self.refining = weighted, refining
        self.models = Models(base, device, resting)
        self.texts: dict[str, TextEmbeddings] = {}
        self._header = header or read_model_header(base.source.path) or LoraHeader()
        self._stated = stated or Stated()
        self._attached = AttachedLoras(base, keep_base)
        self.loras: tuple[ScaledLora, ...] = ()
        self.acting: tuple[Acting, ...] = (Acting(),) * len(loras)
        self._on: tuple[bool, ...] = ()
        self.trained: Trained = trained_with(base, self._header, loras, self._stated)
        if loras:
            self._attach(loras)

    @classmethod
    def open(
        cls,
        base: str,
        *,
        loras: Sequence[str | Path] = (),
        scales: Sequence[float] = (),
        vae: str | None = None,
        dtype: Precision = "auto",
        device: str = "auto",
        offload: bool = False,
        slicing: bool = False,
        preset: str | MelSpec | None = None,
        anchor: str | None = None,
        clip_skip: int | None = None,
        keep_base: bool = True,
        opened: Base | None = None,
        refine: bool = False,
        refine_steps: int | None = None,
    ) -> Self:
        """Open a base with its LoRAs, FILE or FILE:SCALE each, or with one of `scales` each.

        `FILE:0.8@0.3-1#style` acts at noise levels from 0.3 to 1 and in the style layers alone; see `stack`.
        `preset` is a spec or its name; `dtype` auto is fp16 on a GPU, else fp32; `offload` keeps each model on the
        device only while it works. Without `keep_base` no copy of the weights under the LoRAs is kept, and they cannot
        be detached. `opened` is the base where it is open already. With `refine` pictures are refined by the refiner
        that the base carries, in `refine_steps` steps, None = as many as it asks for. Raises MismatchError
        when what is opened does not belong together.
        """
        stated = [parse_acting(str(lora)) for lora in loras]
        stack = read_loras([file for file, _ in stated], scales)
        read = [chosen_layers(lora, acting.layers) for lora, (_, acting) in zip(stack, stated)]
        where = find_device(device)
        precision = dtype if dtype != "auto" else "fp32" if where == "cpu" else "fp16"
        opened = opened or open_base(base, dtype=DTYPES[precision], vae=vae, device="cpu" if offload else where)
        if slicing:
            opened.unet.set_attention_slice("auto")
            opened.vae.enable_slicing()
        generator = cls(
            opened,
            stated=Stated(named_spec(preset) if isinstance(preset, str) else preset, anchor, clip_skip),
            loras=read,
            device=where,
            resting=PARTS if offload else (),
            keep_base=keep_base or any(acting.interval != ALWAYS for _, acting in stated),
        )
        generator.acting = tuple(acting for _, acting in stated)
        if refine:
            channels = 1 if generator.spec.channels == "grey" else 3
            generator.refining = refining_with(opened, refine_steps, channels, where)
        return generator

    @property
    def spec(self) -> MelSpec:
        """Return the spec of the pictures."""
        return self.trained.spec

    @property
    def dtype(self) -> str:
        """Return the precision of the UNet: fp32, fp16 or bf16."""
        return precision_of(self.models.base.unet.dtype)

    @property
    def inputs(self) -> dict[str, str]:
        """Return the hashes of everything that was opened, as a record holds them."""
        inputs = {f"base {part}": digest for part, digest in self.models.base.identity.items()}
        if self.refining is not None:
            inputs["refiner"] = self.refining.identity
        digests = [_digest(lora.path) for lora in self.loras]
        if len(digests) == 1:
            return inputs | {"lora": digests[0]}
        return inputs | {f"lora {number}": digest for number, digest in enumerate(digests, 1)}

    def attach(self, file: str | Path, scale: float = 1.0) -> None:
        """Put one more LoRA on. Raises MismatchError, having changed nothing, for one that does not belong here."""
        self._attach([*self.loras, ScaledLora(Path(file), read_lora(Path(file)), scale)])
        self.acting = (*self.acting, Acting())

    def rescale(self, scale: float) -> None:
        """Let all LoRAs that are on act at one scale, when and where they did; step adapters stay as they are."""
        scaled = [lora if is_few_step(lora.lora.header.drawing) else lora._replace(scale=scale) for lora in self.loras]
        if scaled != list(self.loras):
            self._attach(scaled)

    def detach(self, file: str | Path | None = None) -> None:
        """Take a LoRA off, or all of them; the weights are bit for bit what they were without it."""
        names = [str(lora.path) for lora in self.loras]
        if file is not None and str(file) not in names:
            raise InputError(f"{file}: not attached; attached: {', '.join(names) or 'none'}")
        kept = [file is not None and str(lora.path) != str(file) for lora in self.loras]
        acting = tuple(compress(self.acting, kept))
        self._attach(list(compress(self.loras, kept)))
        self.acting = acting

    def release(self) -> Base:
        """Return the base as it was when it was opened, for the next generator; this one can draw no more."""
        self._exchange([])
        return self.models.base

    @contextmanager
    def without_loras(self) -> Iterator[None]:
        """Let the base alone draw in the block, from the same texts: anchor, clip skip and sampling stay.

        A step adapter beside other LoRAs stays on: without it, its sampling would draw nothing.
        """
        on = self.loras
        adapters = [lora for lora in on if is_few_step(lora.lora.header.drawing)]
        self._exchange(adapters if len(adapters) < len(on) else [])
        try:
            yield
        finally:
            self._exchange(on)

    def settle(self, stated: Drawing | None = None, preset: SamplerPreset | None = None) -> Settled:
        """Return how to draw: as stated, else as the preset, the LoRAs and the base ask; see `samplers.settle`."""
        usual = Drawing(guidance=self.models.base.family.guidance)
        return settle(stated or Drawing(), preset, self.trained.asked, usual)

    def fitting(self, *, long: bool = False) -> Fitting:
        """Return what makes texts of prompts: with the anchor, and cut to what this base reads, or `long` in chunks."""
        base = self.models.base
        tokenizer = base.reading_tokenizer()
        counter = TokenCounter(
            f"tokenizer of {base.name}",
            lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids),
        )
        return Fitting(self.trained.anchor, counter, long)

    def read_texts(self, jobs: Sequence[Job]) -> None:
        """Encode the texts of the jobs that are not known yet; `draw` does it too."""
        wanted = dict.fromkeys(text for job in jobs for text in job.said)
        missing = [text for text in wanted if text not in self.texts]
        if missing:
            self.texts |= self._encoded(missing)
        if "" not in self.texts and len({self.texts[text].prompt_embeds.shape[1] for text in wanted}) > 1:
            self.texts |= self._encoded([""])

    def _encoded(self, texts: Sequence[str]) -> dict[str, TextEmbeddings]:
        return encode_texts(self.models, texts, self.trained.clip_skip, weighted=self.weighted)

    def release_text_encoders(self) -> None:
        """Let the text encoders go; from now on only texts that were read can be drawn."""
        for part in TEXT_ENCODERS:
            self.models.base.models.pop(part, None)

    def _engage(self, level: float) -> None:
        """Let those LoRAs act that do at a noise level; in text encoders they always do."""
        on = tuple(acting.acts_at(level) for _, acting in zip(self.loras, self.acting))
        if on != self._on:
            self._attached.replace([lora if acts else without_unet(lora) for lora, acts in zip(self.loras, on)])
            self._on = on

    def drawer(self, jobs: Sequence[Job], sampling: Sampling | None, layout: Layout, batch: int = 4) -> Drawer:
        """Return what draws these jobs; their texts are read."""
        self.read_texts(jobs)
        return Drawer(
            self.models,
            self.spec,
            sampling or self.settle().sampling,
            layout,
            dict(self.texts),
            batch,
            refining=self.refining,
            before_step=self._engage,
        )

    def draw(
        self,
        jobs: Sequence[Job],
        sampling: Sampling | None = None,
        layout: Layout | None = None,
        *,
        best_of: int = 1,
        judge: Judge | None = None,
        batch: int = 4,
        on_step: Callable[[Step], None] = lambda step: None,
        on_frames: Callable[[Job, Levels, int], None] = lambda job, levels, frames: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Result]:
        """Yield the result of every job in order, as soon as it is finished; nothing is drawn before it is asked for.

        `sampling` None is what the models ask for, `layout` None one tile. The best of `best_of` candidates is kept, as
        `judge` finds. `on_frames` is called while a long piece is drawn that is no loop and not compared with others,
        with its picture (n_mels, frames, 1 or 3) and how many frames from its first are finished. `should_stop` is
        asked before every step: no further one is then taken, and what was finished has been yielded.
        """
        if not jobs:
            return
        layout = layout or lay_out(Length(), self.spec)
        taken = 0

        def before_step(level: float) -> None:
            if should_stop():
                raise _StopError
            self._engage(level)

        def after_step(latents: Tensor) -> None:
            nonlocal taken
            taken += 1
            on_step(Step(taken, total, latents))

        drawer = replace(self.drawer(jobs, sampling, layout, batch), before_step=before_step, on_step=after_step)
        draws = [(job, candidate) for job in jobs for candidate in range(best_of)]
        total = drawer.steps_for(len(draws))
        pictures: list[Levels] = []
        # A long piece fills the batch by itself, and is finished before the next begins; texts of several lengths
        # would lengthen each other.
        lengths = {drawer.texts[text].prompt_embeds.shape[1] for job in jobs for text in job.said}
        at_once = 1 if layout.long or len(lengths) > 1 else batch
        for first in range(0, len(draws), at_once):
            some = draws[first : first + at_once]
            seeds = [candidate_seed(job.seed, candidate) for job, candidate in some]
            if layout.long and best_of == 1:
                drawer = replace(drawer, on_frames=partial(on_frames, some[0][0]))
            try:
                drawn = drawer.draw([job for job, _ in some], seeds)
            except _StopError:
                return
            ready: list[Result] = []
            for (job, candidate), levels in zip(some, drawn):
                pictures.append(levels)
                if candidate == best_of - 1:
                    ready.append(self._result(job, pictures, judge, layout))
                    pictures = []
            yield from (replace(result, more=result is not ready[-1]) for result in ready)

    def draw_prompts(
        self,
        prompts: Sequence[str],
        *,
        num: int = 1,
        seed: int = 0,
        seconds: float | None = None,
        steps: int | None = None,
    ) -> Iterator[Result]:
        """Yield `num` results of every prompt, drawn as the models ask: a tile each, or a long piece of `seconds`.

        The n-th result of a prompt has the seed `seed` + n. `steps` None is what the models ask for.
        """
        layout = lay_out(Length(seconds), self.spec)
        lines = [PromptLine(prompt=prompt) for prompt in prompts]
        jobs = plan_jobs(Prompts(lines, num, seed), self.fitting(long=True), layout.seconds(self.spec), layout.long)
        return self.draw(jobs, self.settle(Drawing(steps=steps)).sampling, layout)

    def _result(self, job: Job, pictures: Sequence[Levels], judge: Judge | None, layout: Layout) -> Result:
        choice = choose(pictures, job.prompt, self.spec, judge) if len(pictures) > 1 else Choice(0, (), None)
        levels, seed = pictures[choice.index], candidate_seed(job.seed, choice.index)
        return Result(job, levels, self.spec, seed, choice, scored_seams(levels, layout.seams, self.spec))

    def _attach(self, loras: Sequence[ScaledLora]) -> None:
        trained = trained_with(self.models.base, self._header, loras, self._stated)
        self._exchange(loras)
        if trained.clip_skip != self.trained.clip_skip:
            self.texts.clear()
        self.trained = trained

    def _exchange(self, loras: Sequence[ScaledLora]) -> None:
        self._attached.replace(loras)
        self._on = (True,) * len(loras)
        if any(part in TEXT_ENCODERS for each in (*self.loras, *loras) for (part, _), _ in each.lora.changes()):
            self.texts.clear()
        self.loras = tuple(loras)


class _StopError(Exception):
    """Raised between two steps, and caught where the results of a batch are gathered."""


def _digest(lora: Path) -> str:
    files = sorted(lora.glob("*.safetensors")) if lora.is_dir() else [lora]
    return ",".join(sha256_file(file) for file in files)
