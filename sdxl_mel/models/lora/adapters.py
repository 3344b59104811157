"""LoRA adapters on the parts of a base: which layers get one, attached through peft, read out and written back."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.family import Part
from sdxl_mel.models.layouts import with_text_model
from sdxl_mel.models.lora.layers import ADAPTER, AdapterConv2d, AdapterLinear
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.names import Module
from sdxl_mel.seeding import torch_generator

PRESETS = ("all-linear", "attention", "all-linear+conv", "attention+conv")

_ATTENTION = re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")


def select_targets(model: nn.Module, part: Part, targets: Sequence[str]) -> list[str]:
    """Return the module paths that `targets` name: presets, or patterns such as `mid_block.*` over the paths.

    all-linear: every Linear of the UNet's transformers (722 in SDXL, 192 in SD 1.5), or of a text encoder's layers (72
    and 192). attention: the projections of their attentions only (560 and 128). +conv adds the UNet's convolutions and
    the Linear layers outside its transformers. Raises InputError for a target that matches nothing, or only what cannot
    be adapted.
    """
    layers = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    chosen: dict[str, None] = {}
    for target in targets:
        found = [path for path in layers if _matches(path, layers[path], part, target)]
        if not found:
            raise InputError(
                f"target {target!r} matches no Linear or Conv2d of the {part}; presets: {', '.join(PRESETS)}; "
                "or a pattern over paths, e.g. 'up_blocks.*.attn2.*'"
            )
        chosen.update(dict.fromkeys(found))
    return [path for path in layers if path in chosen]


def _matches(path: str, module: nn.Linear | nn.Conv2d, part: Part, target: str) -> bool:
    if target not in PRESETS:
        return fnmatchcase(path, target) or fnmatchcase(with_text_model(part, path), target)
    if part != "unet":
        inside = ".layers." in path
        return inside and (target.startswith("all") or bool(_TEXT_ATTENTION.search(path)))
    if ".attentions." not in path:
        return target.endswith("+conv")
    # SD 1.5's transformers have 1 x 1 convolutions where SDXL's have Linear layers.
    linear = isinstance(module, nn.Linear) or module.kernel_size == (1, 1)
    return linear and (target.startswith("all") or bool(_ATTENTION.search(path)))


def groups_by_rank(
    paths: Sequence[str], rank: int, rank_patterns: Mapping[str, int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield (rank, paths) for every rank that occurs: that of the last pattern a path matches, else `rank`.

    Raises InputError for a pattern that matches nothing.
    """
    ranks = dict.fromkeys(paths, rank)
    for pattern, other in rank_patterns.items():
        matched = [path for path in paths if fnmatchcase(path, pattern)]
        if not matched:
            raise InputError(f"rank pattern {pattern!r} matches none of the {len(paths)} chosen layers")
        ranks |= dict.fromkeys(matched, other)
    for each in sorted(set(ranks.values())):
        yield each, [path for path in paths if ranks[path] == each]


Layer = AdapterLinear | AdapterConv2d


@dataclass(frozen=True)
class Adapters:
    """The adapter layers of every adapted part, in the order of the model."""

    layers: dict[Module, Layer]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every trained tensor under a name such as `unet.mid_block.attentions.0.proj_in.down`."""
        for (part, path), layer in self.layers.items():
            yield f"{part}.{path}.down", layer.lora_A[ADAPTER].weight
            yield f"{part}.{path}.up", layer.lora_B[ADAPTER].weight
            if ADAPTER in layer.lora_magnitude_vector:
                yield f"{part}.{path}.magnitude", layer.lora_magnitude_vector[ADAPTER].weight

    def parameters(self) -> list[nn.Parameter]:
        """Return every trained tensor."""
        return [parameter for _, parameter in self.named_parameters()]

    def to_modules(self) -> dict[Module, LoraModule]:
        """Return copies on the CPU, with the alpha that plain LoRA needs for the same scale (rsLoRA included)."""
        return {key: _to_module(layer) for key, layer in self.layers.items()}

    @torch.no_grad()
    def load(self, modules: Mapping[Module, LoraModule], where: str = "LoRA") -> None:
        """Take over the changes that `modules` make, under these layers' alphas.

        Raises MismatchError unless layers, ranks and axes of magnitudes are the same.
        """
        missing, extra = self.layers.keys() - modules.keys(), modules.keys() - self.layers.keys()
        if missing or extra:
            raise MismatchError(
                f"{where}: {len(extra)} modules have no layer here and {len(missing)} layers no module, the first "
                f"{min(map(str, missing or extra))}"
            )
        for key, layer in self.layers.items():
            _fill(layer, modules[key], f"{where}: {key[0]}.{key[1]}")

    def draw_masks(
        self, seed: int, step: int, slots: Sequence[int], rank_dropout: float, module_dropout: float
    ) -> None:
        """Choose which ranks of each sample and which modules take part; a function of (seed, step, slot) alone."""
        if rank_dropout:
            self._draw_ranks(seed, slots, rank_dropout)
        if module_dropout:
            chances = torch.rand(len(self.layers), generator=torch_generator(seed, "module dropout", step))
            for layer, chance in zip(self.layers.values(), chances.tolist()):
                layer.skipped = chance < module_dropout

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Let every adapter sit out while the block runs: the models are the base's, to the bit."""
        before = {layer: layer.skipped for layer in self.layers.values()}
        for layer in before:
            layer.skipped = True
        try:
            yield
        finally:
            for layer, skipped in before.items():
                layer.skipped = skipped

    def clear_masks(self) -> None:
        """Let everything take part."""
        for layer in self.layers.values():
            layer.rank_mask, layer.skipped = None, False

    def _draw_ranks(self, seed: int, slots: Sequence[int], dropout: float) -> None:
        ranks = [layer.r[ADAPTER] for layer in self.layers.values()]
        drawn = [torch.rand(sum(ranks), generator=torch_generator(seed, "rank dropout", slot)) for slot in slots]
        kept = (torch.stack(drawn) >= dropout).float() / (1 - dropout)
        device = next(iter(self.layers.values())).lora_A[ADAPTER].weight.device
        for layer, mask in zip(self.layers.values(), kept.to(device).split(ranks, dim=1)):
            layer.rank_mask = mask


def attach(
    models: Mapping[Part, nn.Module],
    *,
    targets: Sequence[str] = ("all-linear",),
    rank: int = 32,
    alpha: float = 32.0,
    rank_patterns: Mapping[str, int] | None = None,
    rslora: bool = False,
    dora: bool = False,
    seed: int = 0,
) -> Adapters:
    """Freeze `models` (by part) and put fp32 adapters on the layers that `targets` name.

    `down` starts uniform within 1 / sqrt(fan in), `up` at zero, so that training starts at the base model.
    """
    layers: dict[Module, Layer] = {}
    for part, model in models.items():
        model.requires_grad_(False)
        paths = select_targets(model, part, targets)
        for each, group in groups_by_rank(paths, rank, rank_patterns or {}):
            _inject(model, group, each, alpha, rslora=rslora, dora=dora)
        layers |= {(part, with_text_model(part, path)): _layer_at(model, path) for path in paths}
    for (part, path), layer in layers.items():
        _initialise(layer, torch_generator(seed, "adapter", part, path))
    adapters = Adapters(layers)
    _check(models, adapters)
    return adapters


def _inject(model: nn.Module, paths: Sequence[str], rank: int, alpha: float, *, rslora: bool, dora: bool) -> None:
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        use_dora=dora,
        target_modules="|".join(map(re.escape, paths)),
    )
    config._register_custom_module({nn.Linear: AdapterLinear, nn.Conv2d: AdapterConv2d})
    # A model that peft has seen before warns of several adapters; here it is one adapter in several ranks.
    if hasattr(model, "peft_config"):
        del model.peft_config
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, model, ADAPTER)


def _layer_at(model: nn.Module, path: str) -> Layer:
    layer = model.get_submodule(path)
    if not isinstance(layer, AdapterLinear | AdapterConv2d):
        raise MismatchError(f"{path}: peft put no adapter on this {type(layer).__name__}")
    return layer


@torch.no_grad()
def _initialise(layer: Layer, generator: torch.Generator) -> None:
    for kind in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
        for module in kind.values():
            module.weight = nn.Parameter(module.weight.detach().float())
    down = layer.lora_A[ADAPTER].weight
    if down.is_meta:
        return
    drawn = torch.rand(down.shape, generator=generator) * 2 - 1
    down.copy_(drawn / down[0].numel() ** 0.5)


def _check(models: Mapping[Part, nn.Module], adapters: Adapters) -> None:
    trained = {id(parameter) for parameter in adapters.parameters()}
    for part, model in models.items():
        loose = [name for name, each in model.named_parameters() if each.requires_grad and id(each) not in trained]
        low = [name for name, each in adapters.named_parameters() if each.dtype != torch.float32]
        if loose or low:
            raise MismatchError(f"{part}: {(loose or low)[0]} should be {'frozen' if loose else 'float32'}")


def _to_module(layer: Layer) -> LoraModule:
    rank = layer.r[ADAPTER]
    has_magnitude = ADAPTER in layer.lora_magnitude_vector
    return LoraModule(
        down=_copy(layer.lora_A[ADAPTER].weight),
        up=_copy(layer.lora_B[ADAPTER].weight),
        alpha=layer.scaling[ADAPTER] * rank,
        magnitude=_copy(layer.lora_magnitude_vector[ADAPTER].weight).flatten() if has_magnitude else None,
    )


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _fill(layer: Layer, module: LoraModule, where: str) -> None:
    own = _to_module(layer)
    dora = own.magnitude is not None
    theirs = (module.down.shape, module.up.shape, module.magnitude is not None, module.axis)
    if (own.down.shape, own.up.shape, dora, own.axis) != theirs:
        raise MismatchError(
            f"{where}: found down {tuple(module.down.shape)}, up {tuple(module.up.shape)}; "
            f"expected {tuple(own.down.shape)}, {tuple(own.up.shape)}{' with magnitudes of the rows' if dora else ''}"
        )
    module = module.with_alpha(own.alpha)
    layer.lora_A[ADAPTER].weight.copy_(module.down)
    layer.lora_B[ADAPTER].weight.copy_(module.up)
    if module.magnitude is not None:
        magnitude = layer.lora_magnitude_vector[ADAPTER].weight
        magnitude.copy_(module.magnitude.view(magnitude.shape))
