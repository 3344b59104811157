"""Models made of tensors: every part of a base, wherever its weights lie, is matched to its config tensor by tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import diffusers.utils.logging as diffusers_logging
import torch
import transformers
import transformers.utils.logging as transformers_logging
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from transformers.initialization import no_init_weights

from sdxl_mel.errors import FormatError
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.family import TEXT_ENCODERS, Config, Part
from sdxl_mel.models.layouts import canonical

DAMAGED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, AssertionError)
"""What the constructors of models raise for numbers that make no sense."""


def load_model(checkpoint: Checkpoint, part: Part, config: Config, dtype: torch.dtype) -> Any:
    """Return the model of one part in `dtype`.

    Raises FormatError for a config of which no model can be made, and for tensors that are missing, have no place in
    the model, or another shape.
    """
    model = _empty_model(checkpoint, part, config)
    wanted = {canonical(part, name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    given = {name: checkpoint.type_of((owner, name)).shape for owner, name in checkpoint.places if owner == part}
    wrong = sorted(
        [f"missing {name}" for name in wanted.keys() - given.keys()]
        + [f"unknown {name}" for name in given.keys() - wanted.keys()]
        + [f"of another shape {name}" for name in wanted.keys() & given.keys() if wanted[name][1] != given[name]]
    )
    if wrong:
        raise FormatError(
            f"{checkpoint.path}: its {part} does not fit the config: {len(wrong)} tensors do not match its "
            f"config.json, first: {wrong[0]}; give the configs of this model"
        )
    state = {}
    for name, (key, _) in wanted.items():
        state[key] = checkpoint.read((part, name)).to(dtype, memory_format=torch.contiguous_format, copy=True)
        checkpoint.forget((part, name))
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _empty_model(checkpoint: Checkpoint, part: Part, config: Config) -> Any:
    """Return the model of a config without memory for its weights, and without the numbers they would start from."""
    library = transformers if part in TEXT_ENCODERS else diffusers
    kind = getattr(library, checkpoint.architecture.family.component(part).class_name)
    try:
        with _quiet_libraries(), no_init_weights(), init_empty_weights():
            if part in TEXT_ENCODERS:
                return kind(transformers.CLIPTextConfig.from_dict(dict(config)))
            return kind.from_config(dict(config))
    except (*DAMAGED, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError(
            f"{checkpoint.path}: no {part} can be made of its config ({reason}); copy it again"
        ) from error


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the warnings of diffusers and transformers: whatever they would warn of is checked here."""
    both = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in both]
    for library in both:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(both, before):
            library.set_verbosity(level)
