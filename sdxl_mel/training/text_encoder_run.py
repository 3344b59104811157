"""A run that distils smaller text encoders, from its settings to its result."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from sdxl_mel.errors import InputError
from sdxl_mel.files.cache import Cache, CachedExample, open_cache
from sdxl_mel.files.prompts import read_prompts
from sdxl_mel.files.run import BASE_NAME
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.derived import write_derived_base
from sdxl_mel.models.family import TEXT_ENCODERS, Component
from sdxl_mel.models.pruning import influences
from sdxl_mel.models.small_encoder import encoder_layers, kept_layers, smaller_encoder, smaller_tokenizer
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.record import sha256_file
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.training.distillation import cached_splits, header_of_base, header_of_distillation, write_card
from sdxl_mel.training.loop import Results
from sdxl_mel.training.run import Prepared, carry_out, start_run
from sdxl_mel.training.task import HELD_OUT, TRAINED
from sdxl_mel.training.text_encoder_settings import Config
from sdxl_mel.training.text_encoder_task import Captions, TextEncoderTask

MEASURED_ON = 16
"""Captions that are embedded to find the layers that matter."""
QUARTER = 4


def train_text_encoder(config: Config) -> Results | None:
    """Distil smaller text encoders, or resume; returns what it came to, None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = cached_splits(cache)
        teacher = open_base(config.base, TEXT_ENCODERS, device=run.device)
        prompts = {"prompts": sha256_file(config.prompts)} if config.prompts else {}
        header = header_of_distillation(run, teacher, cache, prompts)
        texts = ["", *captions_of(cache, [*splits["train"], *splits["regularization"]])]
        if config.prompts:
            texts = list(dict.fromkeys([*texts, *(line.prompt for line in read_prompts(config.prompts))]))
        held_out = captions_of(cache, splits["validation"])
        student = smaller_base(config, teacher, texts, held_out, cache.header.clip_skip)
        size, whole = (
            sum(parameter.numel() for encoder in base.text_encoders for parameter in encoder.parameters())
            for base in (student, teacher)
        )
        share = f"{size / 1e6:.2f} M parameters, {size / whole:.0%} of {whole / 1e6:.1f} M, for {len(texts)} captions"
        task = TextEncoderTask(
            student,
            teacher,
            Captions(texts, cache.header.anchor, config.mixed, config.batch, config.seed),
            clip_skip=cache.header.clip_skip,
            pooled=config.loss.pooled,
            rate=config.optimizer.rate,
            judged_texts={HELD_OUT: some(held_out, config), TRAINED: some(texts, config)}
            if config.validation.every and held_out
            else {},
            write=lambda folder: write(folder, student, header),
            accelerator=run.accelerator,
            dtype=run.dtype,
        )
        about = [
            f"The base `{config.base}` with smaller text encoders: {share}. `config.toml` starts it again.",
            f"`{config.out / BASE_NAME}` is a base for every command. Caches are made anew with it.",
        ]
        prepared = Prepared(
            task, header, lambda header: write_card(config.out, header, about), told=[f"{config.out.name}: {share}"]
        )
        return carry_out(run, prepared)


def captions_of(cache: Cache, clips: Sequence[CachedExample]) -> list[str]:
    """Return the captions of clips, each once."""
    keys = dict.fromkeys(chain.from_iterable(clip.captions for clip in clips))
    return list(dict.fromkeys(map(cache.caption, keys)))


def some(texts: Sequence[str], config: Config) -> list[str]:
    """Return the captions that are judged."""
    order = numpy_generator(config.seed, "judged captions").permutation(len(texts))[: config.validation.clips]
    return [texts[index] for index in sorted(order)]


def smaller_base(config: Config, teacher: Base, texts: Sequence[str], held_out: Sequence[str], clip_skip: int) -> Base:
    """Return the base with smaller text encoders, before they are trained.

    Raises InputError for numbers of layers that are not one for each text encoder, or that cannot be.
    """
    components = teacher.family.text_encoders
    counts = config.encoder.layers
    if counts is not None and len(counts) != len(components):
        raise InputError(f"encoder.layers: found {len(counts)}; {config.base} has {len(components)} text encoders")
    layers = {component.part: encoder_layers(teacher.models[component.part]) for component in components}
    blocks = {f"{part} {index}": layer for part, each in layers.items() for index, layer in enumerate(each)}
    with torch.no_grad(), influences(blocks) as influence:
        encode_prompts(teacher, texts[:: -(-len(texts) // MEASURED_ON)], clip_skip)
    models, tokenizers = {}, {}
    for place, component in enumerate(components):
        part, own = component.part, len(layers[component.part])
        count = max(2, own // QUARTER) if counts is None else counts[place]
        kept = kept_layers([influence[f"{part} {index}"] for index in range(own)], count)
        tokenizer, tokens = tokens_of(config, teacher, component, [*texts, *held_out])
        encoder = smaller_encoder(teacher.models[part], kept, tokens, tokenizer).to(teacher.models[part].device)
        models[part], tokenizers[component.tokenizer] = encoder.requires_grad_(True), tokenizer
    return replace(teacher, models=models, tokenizers=tokenizers)


def tokens_of(config: Config, teacher: Base, component: Component, texts: Sequence[str]) -> tuple[Any, Sequence[int]]:
    """Return the tokenizer of a smaller text encoder, and the tokens of the whole one that it has."""
    tokenizer = teacher.tokenizers[component.tokenizer]
    if config.encoder.vocabulary == "captions":
        return smaller_tokenizer(tokenizer, texts)
    return tokenizer, range(teacher.models[component.part].config.vocab_size)


def write(folder: Path, student: Base, header: RunHeader) -> None:
    """Write the base with the smaller text encoders."""
    about = header_of_base(header, student, student.architecture)
    write_derived_base(folder / BASE_NAME, student, student.models, about, student.tokenizers)
