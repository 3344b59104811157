"""Adapters: which layers, in which dtype, computed as the formula says, read out and put back without loss."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import Base
from sdxl_mel.models.folder import Folder
from sdxl_mel.models.lora.adapters import attach, select_targets
from sdxl_mel.models.lora.file import Lora
from sdxl_mel.models.lora.layers import ADAPTER
from sdxl_mel.models.sdxl import SDXL
from tests.loras import attach as attach_lora
from tests.tiny_models import PROJECTION, WIDTH, tiny_unet

HALF = torch.bfloat16


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_unet()


@pytest.fixture(scope="module")
def slim_unet() -> UNet2DConditionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_unet(slim=True)


def base_of(unet: nn.Module) -> Base:
    source = Folder(Path("a base"), vae_of=SDXL)
    return Base("a base", source, source, {"unet": unet}, {}, None)


def _call(unet, dtype=torch.float32, batch=2):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return unet(
        draw(batch, 4, 8, 8),
        torch.full((batch,), 400),
        draw(batch, 7, WIDTH + PROJECTION),
        added_cond_kwargs={"text_embeds": draw(batch, PROJECTION), "time_ids": torch.full((batch, 6), 64.0)},
    ).sample


def _randomise(adapters, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["all-linear"], 302),
        (["attention"], 224),
        (["mid_block.*.attn1.to_q"], 3),
        (["attention", "mid_block.*"], 238),
    ],
)
def test_the_targets_of_sdxls_topology(unet, targets, count):
    assert len(select_targets(unet, "unet", targets)) == count


def test_convolutions_too(unet):
    paths = select_targets(unet, "unet", ["all-linear+conv"])
    assert {"conv_in", "time_embedding.linear_1", "down_blocks.0.downsamplers.0.conv"} <= set(paths)


@pytest.mark.parametrize("target", ["all-liner", "nothing.*", "*.norm1"])
def test_a_target_that_matches_nothing_is_refused(unet, target):
    with pytest.raises(InputError, match="matches no Linear"):
        select_targets(unet, "unet", [target])


def test_fresh_adapters_change_nothing_and_are_fp32_on_a_bf16_base(unet):
    model = copy.deepcopy(unet).to(HALF)
    before = _call(model, HALF)
    adapters = attach({"unet": model}, rank=4, alpha=4)
    assert len(adapters.layers) == 302
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
    assert sum(p.requires_grad for p in model.parameters()) == 2 * 302
    assert torch.equal(_call(model, HALF), before)


def test_small_updates_survive_in_fp32_where_bf16_masters_lose_them(unet):
    model = copy.deepcopy(unet).to(HALF)
    adapters = attach({"unet": model}, rank=4, alpha=4, targets=["mid_block.*.attn1.to_q"])
    parameter = adapters.parameters()[0]
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.mul_(1 + 2**-12)
    assert not torch.equal(parameter, before)
    assert torch.equal((before.to(HALF) * (1 + 2**-12)).to(HALF), before.to(HALF))


def test_no_activation_is_kept_in_fp32(unet):
    """Under autocast the norms and the adapters' inputs would be; here only vectors are."""
    model = copy.deepcopy(unet).to(HALF)
    attach({"unet": model}, rank=4, alpha=4)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        _call(model, HALF).float().square().mean()
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    wide = [t for t in saved if t.dtype == torch.float32 and t.ndim >= 3 and t.data_ptr() not in weights]
    names = {tuple(t.shape) for t in wide}
    assert sum(t.numel() for t in wide) < 0.01 * sum(t.numel() for t in saved), names


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2 / 8), (True, 2 / 8**0.5)])
def test_the_formula_and_its_export(rslora, scale):
    model = nn.ModuleDict({"proj": nn.Linear(6, 5), "conv": nn.Conv2d(3, 4, 3, padding=1, stride=2)})
    plain = copy.deepcopy(model)
    adapters = attach({"unet": model}, targets=["proj", "conv"], rank=8, alpha=2, rslora=rslora)
    _randomise(adapters)
    modules = adapters.to_modules()
    module = modules["unet", "proj"]
    assert module.alpha / module.rank == pytest.approx(scale)
    x = torch.randn(7, 6)
    expected = nn.functional.linear(x, plain["proj"].weight + module.product(), plain["proj"].bias)
    assert torch.allclose(model["proj"](x), expected, atol=1e-5)
    convolution = modules["unet", "conv"]
    picture = torch.randn(2, 3, 8, 8)
    weight = plain["conv"].weight + convolution.product()
    expected = nn.functional.conv2d(picture, weight, plain["conv"].bias, stride=2, padding=1)
    assert torch.allclose(model["conv"](picture), expected, atol=1e-5)


def test_gradients_are_those_of_pefts_own_forward():
    model = nn.ModuleDict({"proj": nn.Linear(6, 5)})
    adapters = attach({"unet": model}, targets=["proj"], rank=3, alpha=6)
    _randomise(adapters)
    x = torch.randn(4, 2, 6)
    model["proj"](x).square().sum().backward()
    ours = [parameter.grad.clone() for parameter in adapters.parameters()]
    for parameter in adapters.parameters():
        parameter.grad = None
    super(type(model["proj"]), model["proj"]).forward(x).square().sum().backward()
    for mine, parameter in zip(ours, adapters.parameters()):
        assert torch.allclose(mine, parameter.grad, atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_read_out_and_attached_elsewhere_it_is_the_same_model(unet, slim_unet, dora):
    unet = slim_unet if dora else unet
    model = copy.deepcopy(unet)
    adapters = attach({"unet": model}, rank=4, alpha=2, rank_patterns={"mid_block.*": 2}, dora=dora)
    _randomise(adapters)
    lora = Lora(adapters.to_modules())
    assert lora.modules["unet", "mid_block.attentions.0.proj_in"].rank == 2
    other = base_of(copy.deepcopy(unet))
    assert len(lora.modules) == (84 if dora else 302)
    attached = attach_lora(other, lora)
    assert torch.allclose(_call(other.unet), _call(model), atol=1e-5)
    attached.replace([])
    assert torch.equal(_call(other.unet), _call(unet))


def test_scale_is_linear_in_the_delta():
    model = nn.ModuleDict({"proj": nn.Linear(6, 5, bias=False)})
    adapters = attach({"unet": model}, targets=["proj"], rank=3, alpha=6)
    _randomise(adapters)
    lora = Lora(adapters.to_modules())
    x = torch.randn(4, 6)
    base = model["proj"].base_layer(x)
    other = nn.ModuleDict({"proj": nn.Linear(6, 5, bias=False)})
    other["proj"].weight.data.copy_(model["proj"].base_layer.weight)
    attach_lora(base_of(other), lora, scale=0.5)
    assert torch.allclose(other["proj"](x) - base, 0.5 * (model["proj"](x) - base), atol=1e-6)


def test_a_module_without_its_layer_is_refused(unet):
    adapters = attach({"unet": nn.ModuleDict({"elsewhere": nn.Linear(4, 4)})}, targets=["elsewhere"], rank=2, alpha=2)
    with pytest.raises(MismatchError, match="elsewhere .not in the base"):
        attach_lora(base_of(copy.deepcopy(unet)), Lora(adapters.to_modules()))


def test_loading_another_rank_is_refused_and_another_alpha_changes_nothing():
    def fresh(rank, alpha):
        return attach({"unet": nn.ModuleDict({"p": nn.Linear(4, 4)})}, targets=["p"], rank=rank, alpha=alpha)

    with pytest.raises(MismatchError, match="expected"):
        fresh(2, 2).load(fresh(3, 3).to_modules())
    layers, others = fresh(2, 2), fresh(2, 1)
    _randomise(others)
    layers.load(others.to_modules())
    (ours,), (theirs,) = layers.to_modules().values(), others.to_modules().values()
    assert ours.alpha == 2 and torch.allclose(ours.product(), theirs.product())


def test_rank_dropout_is_per_sample_and_keeps_the_mean():
    model = nn.ModuleDict({"p": nn.Linear(8, 8)})
    adapters = attach({"unet": model}, targets=["p"], rank=64, alpha=64)
    layer = adapters.layers["unet", "p"]
    adapters.draw_masks(0, 3, [10, 11, 12], rank_dropout=0.25, module_dropout=0.0)
    mask = layer.rank_mask.clone()
    assert mask.shape == (3, 64)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert not torch.equal(mask[0], mask[1])
    adapters.draw_masks(0, 3, [12], rank_dropout=0.25, module_dropout=0.0)
    assert torch.equal(layer.rank_mask[0], mask[2]), "a sample draws the same in any batch"
    _randomise(adapters)
    masked = model["p"](torch.ones(1, 5, 8))
    adapters.clear_masks()
    assert not torch.allclose(masked, model["p"](torch.ones(1, 5, 8)))


def test_module_dropout_skips_about_the_asked_share(unet):
    adapters = attach({"unet": copy.deepcopy(unet)}, rank=2, alpha=2)
    adapters.draw_masks(0, 0, [0], rank_dropout=0.0, module_dropout=0.3)
    first = [layer.skipped for layer in adapters.layers.values()]
    assert 0.2 < sum(first) / 302 < 0.4
    adapters.draw_masks(0, 1, [0], rank_dropout=0.0, module_dropout=0.3)
    assert first != [layer.skipped for layer in adapters.layers.values()]


def test_the_start_depends_on_seed_and_place_only(slim_unet):
    first = attach({"unet": copy.deepcopy(slim_unet)}, rank=2, alpha=2, seed=4)
    again = attach({"unet": copy.deepcopy(slim_unet)}, rank=2, alpha=2, seed=4, targets=["mid_block.*"])
    other = attach({"unet": copy.deepcopy(slim_unet)}, rank=2, alpha=2, seed=5)
    key = ("unet", "mid_block.attentions.0.proj_in")
    weights = [each.layers[key].lora_A[ADAPTER].weight for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert float(weights[0].abs().max()) <= 1 / weights[0].shape[1] ** 0.5


def test_text_encoder_keys_always_hold_text_model(tiny_sdxl):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    models = {
        "text_encoder": CLIPTextModel.from_pretrained(tiny_sdxl / "text_encoder"),
        "text_encoder_2": CLIPTextModelWithProjection.from_pretrained(tiny_sdxl / "text_encoder_2"),
    }
    adapters = attach(models, rank=2, alpha=2)
    assert len(adapters.layers) == 2 * 3 * 6
    assert all(path.startswith("text_model.encoder.layers.") for _, path in adapters.layers)
