"""Files of other programs, made from random factors: each is read as its definition says, or refused by its name."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdxl_mel.errors import InputError
from sdxl_mel.models.base import open_base
from sdxl_mel.models.lora.file import Lora, read_lora, write_lora
from sdxl_mel.models.lora.module import FullModule, LoraModule
from sdxl_mel.models.lora.scaled import ScaledLora, left_out_of
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.progress import Message, showing
from sdxl_mel.stages import fuse
from sdxl_mel.stages.lora import Convert
from sdxl_mel.stages.lora import run as convert
from tests.checkpoints import weights
from tests.loras import attach

RANK, OUT, IN = 3, 8, 6
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
LAYER = "encoder.layers.1"
Q, TO_OUT = ("unet", f"{ATTENTION}.to_q"), ("unet", f"{ATTENTION}.to_out.0")
PROJ = ("unet", "down_blocks.1.attentions.0.proj_in")
FC1, FC2 = ("text_encoder", f"text_model.{LAYER}.mlp.fc1"), ("text_encoder_2", f"text_model.{LAYER}.mlp.fc2")
TEXT_Q = ("text_encoder", f"text_model.{LAYER}.self_attn.q_proj")
CONV = ("unet", "mid_block.resnets.0.conv1")
KOHYA_CONV = "lora_unet_middle_block_0_in_layers_2"


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=generator)


def read(tmp_path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, alpha=None) -> Lora:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "foreign.safetensors", metadata
    )
    return read_lora(tmp_path / "foreign.safetensors", alpha)


def delta(lora: Lora, param: tuple[str, str], weight: Tensor) -> Tensor:
    ((_, module),) = [(name, module) for name, module in lora.changes() if name == param]
    assert module.fits(tuple(weight.shape))
    return module.delta(weight)


SPELLINGS = {
    "attention processors of diffusers 0.15": {
        Q: f"unet.{ATTENTION}.processor.to_q_lora.{{}}.weight",
        TO_OUT: f"unet.{ATTENTION}.processor.to_out_lora.{{}}.weight",
        TEXT_Q: f"text_encoder.text_model.{LAYER}.self_attn.to_q_lora.{{}}.weight",
    },
    "attention processors of a UNet alone": {
        Q: f"{ATTENTION}.processor.to_q_lora.{{}}.weight",
        TO_OUT: f"{ATTENTION}.processor.to_out_lora.{{}}.weight",
    },
    "lora layers of diffusers 0.20": {
        Q: f"unet.{ATTENTION}.to_q.lora.{{}}.weight",
        FC2: f"text_encoder_2.text_model.{LAYER}.mlp.fc2.lora_linear_layer.{{}}.weight",
    },
    "OneTrainer, Stability's names": {
        PROJ: "unet.input_blocks.4.1.proj_in.lora_{}.weight",
        FC1: f"clip_l.text_model.{LAYER}.mlp.fc1.lora_{{}}.weight",
        FC2: f"clip_g.text_model.{LAYER}.mlp.fc2.lora_{{}}.weight",
    },
    "OneTrainer, diffusers' names": {
        PROJ: f"lora_unet.{PROJ[1]}.lora_{{}}.weight",
        FC1: f"lora_te1.text_model.{LAYER}.mlp.fc1.lora_{{}}.weight",
        FC2: f"lora_te2.text_model.{LAYER}.mlp.fc2.lora_{{}}.weight",
    },
    "ComfyUI": {
        PROJ: "diffusion_model.input_blocks.4.1.proj_in.lora_{}.weight",
        FC1: f"text_encoders.clip_l.transformer.text_model.{LAYER}.mlp.fc1.lora_{{}}.weight",
        FC2: f"text_encoders.clip_g.transformer.text_model.{LAYER}.mlp.fc2.lora_{{}}.weight",
    },
    "LyCORIS around a UNet": {
        PROJ: "lycoris_down_blocks_1_attentions_0_proj_in.lora_{}.weight",
        Q: "lycoris_" + Q[1].replace(".", "_") + ".lora_{}.weight",
    },
    "LyCORIS around a pipeline": {
        PROJ: "lycoris_unet_down_blocks_1_attentions_0_proj_in.lora_{}.weight",
        FC1: "lycoris_te1_" + FC1[1].replace(".", "_") + ".lora_{}.weight",
    },
    "a checkpoint's names": {
        PROJ: "model.diffusion_model.input_blocks.4.1.proj_in.lora_{}.weight",
        FC1: f"conditioner.embedders.0.transformer.text_model.{LAYER}.mlp.fc1.lora_{{}}.weight",
    },
}
PEFT = {
    "peft around a UNet": {key: f"base_model.model.{key[1]}.lora_{{}}.weight" for key in (PROJ, Q)},
    "peft with the adapter's name": {
        PROJ: f"unet.base_model.model.{PROJ[1]}.lora_{{}}.default.weight",
        FC1: f"text_encoder.base_model.model.text_model.{LAYER}.mlp.fc1.lora_{{}}.mine.weight",
    },
    "a UNet alone": {PROJ: f"{PROJ[1]}.lora_{{}}.weight", TO_OUT: f"{TO_OUT[1]}.lora_{{}}.weight"},
    "text encoders of transformers 5": {FC1: f"text_encoder.{LAYER}.mlp.fc1.lora_{{}}.weight"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "roles"),
    [(names, ("down", "up")) for names in SPELLINGS.values()] + [(names, ("A", "B")) for names in PEFT.values()],
    ids=[*SPELLINGS, *PEFT],
)
def test_a_lora_is_read_in_every_spelling(names, roles, tmp_path, draw):
    tensors, wanted = {}, {}
    for module, name in names.items():
        down, up = draw(RANK, IN), draw(OUT, RANK)
        tensors |= {name.format(roles[0]): down, name.format(roles[1]): up}
        wanted[module] = up @ down
    lora = read(tmp_path, tensors)
    assert lora.family is SDXL and lora.modules.keys() == wanted.keys()
    for module, expected in wanted.items():
        torch.testing.assert_close(lora.modules[module].product(), expected)


def test_alphas_count_in_every_spelling_and_are_the_rank_where_there_are_none(tmp_path, draw):
    down, up, said = draw(RANK, IN), draw(OUT, RANK), []
    for name in (
        "lora_unet.mid_block.attentions.0.proj_in",
        "diffusion_model.middle_block.1.proj_in",
        "lycoris_mid_block_attentions_0_proj_in",
    ):
        tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        with showing(lambda event: said.append(event) if "hold no alpha" in getattr(event, "text", "") else None):
            stated = read(tmp_path, tensors | {f"{name}.alpha": torch.tensor(2.0)})
            assert said == []
            scales = [next(iter(read(tmp_path, tensors, alpha=a).modules.values())).scale for a in (None, "rank", 6.0)]
        torch.testing.assert_close(next(iter(stated.modules.values())).product(), up @ down * 2 / RANK)
        assert scales == [1, 1, 2]
        assert not any("alpha" in note for note in stated.notes)
        (note,) = said
        assert isinstance(note, Message) and "1 of 1 modules hold no alpha; their scale is 1" in note.text
        said.clear()


def test_minis_blocks_are_recognised(tmp_path, draw):
    name = "unet.input_blocks.3.1.proj_in.lora_{}.weight"
    lora = read(tmp_path, {name.format("down"): draw(RANK, IN), name.format("up"): draw(OUT, RANK)})
    assert (lora.header.architecture.layers_per_block, [*lora.modules]) == (1, [PROJ])


def test_sd15_in_foreign_spellings(tmp_path, draw):
    names = ("lora_te.text_model.encoder.layers.0.mlp.fc1", "diffusion_model.input_blocks.1.1.proj_in")
    tensors = {f"{name}.lora_{role}.weight": draw(4, 4) for name in names for role in ("down", "up")}
    lora = read(tmp_path, tensors)
    assert lora.family is SD15
    assert [*lora.modules] == [("unet", "down_blocks.0.attentions.0.proj_in"), (
        "text_encoder", "text_model.encoder.layers.0.mlp.fc1")]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_every_floating_point(dtype, tmp_path, draw):
    down, up = draw(RANK, IN).to(dtype), draw(OUT, RANK).to(dtype)
    name = "lora_unet_middle_block_1_proj_in"
    lora = read(
        tmp_path, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(3)}
    )
    torch.testing.assert_close(next(iter(lora.modules.values())).product(), up.float() @ down.float())
    assert delta(lora, ("unet", "mid_block.attentions.0.proj_in.weight"), draw(OUT, IN)).isfinite().all()


def test_integers_are_refused(tmp_path):
    with pytest.raises(InputError, match="lora_down.weight holds int8"):
        read(tmp_path, {"lora_unet_middle_block_1_proj_in.lora_down.weight": torch.ones(2, 2, dtype=torch.int8)})


def kron_blocks(first: Tensor, second: Tensor) -> Tensor:
    """The Kronecker product block by block: block (i, j) is first[i, j] times the second factor."""
    return torch.cat([torch.cat([each * second for each in row], dim=1) for row in first])


def test_lokr_of_a_linear_layer(tmp_path, draw):
    a, b, c, d = 2, 3, 4, 2
    name, param = "lycoris_" + PROJ[1].replace(".", "_"), ("unet", f"{PROJ[1]}.weight")
    w1, w2, w1a, w1b, w2a, w2b = draw(a, b), draw(c, d), draw(a, 2), draw(2, b), draw(c, 2), draw(2, d)
    one, two, alpha = {"w1": w1}, {"w2": w2}, torch.tensor(0.5)
    ones, twos = {"w1_a": w1a, "w1_b": w1b}, {"w2_a": w2a, "w2_b": w2b}
    for parts, expected in (
        (one | two, kron_blocks(w1, w2)),
        (one | twos, kron_blocks(w1, w2a @ w2b) * 0.5 / 2),
        (ones | two, kron_blocks(w1a @ w1b, w2) * 0.5 / 2),
        (ones | twos, kron_blocks(w1a @ w1b, w2a @ w2b) * 0.5 / 2),
    ):
        tensors = {f"{name}.lokr_{key}": tensor for key, tensor in parts.items()} | {f"{name}.alpha": alpha}
        lora = read(tmp_path, tensors)
        assert not lora.modules and [*lora.others] == [param]
        torch.testing.assert_close(delta(lora, param, torch.zeros(a * c, b * d)), expected)


def test_lokr_of_a_convolution(tmp_path, draw):
    a, b, c, d, k = 2, 3, 4, 2, 3
    w1, w2, w2a, w2b = draw(a, b), draw(c, d, k, k), draw(c, 2), draw(2, d * k * k)
    core, left, right = draw(2, 2, k, k), draw(2, c), draw(2, d)
    rebuilt = torch.zeros(c, d, k, k)
    for i in range(2):
        for j in range(2):
            rebuilt += left[i][:, None, None, None] * right[j][None, :, None, None] * core[i, j]
    for parts, scale, second in (
        ({"w1": w1, "w2": w2}, 1.0, w2),
        ({"w1": w1, "w2_a": w2a, "w2_b": w2b}, 0.5, (w2a @ w2b).reshape(c, d, k, k)),
        ({"w1": w1, "w2_a": left, "w2_b": right, "t2": core}, 0.5, rebuilt),
    ):
        tensors = {f"{KOHYA_CONV}.lokr_{key}": tensor for key, tensor in parts.items()}
        lora = read(tmp_path, tensors | {f"{KOHYA_CONV}.alpha": torch.tensor(1.0)})
        expected = torch.stack(
            [torch.stack([kron_blocks(w1, second[:, :, y, x]) for x in range(k)], -1) for y in range(k)], -2
        )
        found = delta(lora, ("unet", f"{CONV[1]}.weight"), torch.zeros(a * c, b * d, k, k))
        torch.testing.assert_close(found, expected * scale)


def test_loha_of_a_linear_layer_and_of_a_convolution(tmp_path, draw):
    w1a, w1b, w2a, w2b = draw(OUT, 2), draw(2, IN * 9), draw(OUT, 2), draw(2, IN * 9)
    tensors = {
        f"{KOHYA_CONV}.hada_{key}": each for key, each in zip(("w1_a", "w1_b", "w2_a", "w2_b"), (w1a, w1b, w2a, w2b))
    }
    lora = read(tmp_path, tensors | {f"{KOHYA_CONV}.alpha": torch.tensor(3.0)})
    expected = ((w1a @ w1b) * (w2a @ w2b)).reshape(OUT, IN, 3, 3) * 3 / 2
    torch.testing.assert_close(delta(lora, ("unet", f"{CONV[1]}.weight"), torch.zeros(OUT, IN, 3, 3)), expected)
    name = f"text_encoders.clip_l.transformer.text_model.{LAYER}.mlp.fc1"
    lora = read(tmp_path, {f"{name}.{key.partition('.')[2]}": each for key, each in tensors.items()}, alpha=4.0)
    expected = (w1a @ w1b) * (w2a @ w2b) * 4 / 2
    torch.testing.assert_close(delta(lora, (FC1[0], f"{FC1[1]}.weight"), torch.zeros(OUT, IN * 9)), expected)


def test_tucker_forms_of_lora_and_loha(tmp_path, draw):
    down, up, core = draw(2, IN, 1, 1), draw(OUT, RANK, 1, 1), draw(RANK, 2, 3, 3)
    lora = read(tmp_path, {
        f"{KOHYA_CONV}.lora_down.weight": down, f"{KOHYA_CONV}.lora_mid.weight": core,
        f"{KOHYA_CONV}.lora_up.weight": up, f"{KOHYA_CONV}.alpha": torch.tensor(RANK),
    })  # fmt: skip
    x = draw(1, IN, 5, 5)
    chain = torch.conv2d(torch.conv2d(torch.conv2d(x, down), core, padding=1), up)
    torch.testing.assert_close(torch.conv2d(x, lora.modules[CONV].product(), padding=1), chain, atol=1e-4, rtol=1e-4)
    parts = {"w1_a": draw(2, OUT), "w1_b": draw(2, IN), "t1": draw(2, 2, 3, 3)}
    parts |= {"w2_a": draw(2, OUT), "w2_b": draw(2, IN), "t2": draw(2, 2, 3, 3)}
    lora = read(tmp_path, {f"{KOHYA_CONV}.hada_{key}": each for key, each in parts.items()})
    wanted = torch.ones(OUT, IN, 3, 3)
    for number in "12":
        a, b, t = (parts[f"{key}"] for key in (f"w{number}_a", f"w{number}_b", f"t{number}"))
        wanted *= sum(a[i][:, None, None, None] * b[j][:, None, None] * t[i, j] for i in range(2) for j in range(2))
    torch.testing.assert_close(delta(lora, ("unet", f"{CONV[1]}.weight"), torch.zeros(OUT, IN, 3, 3)), wanted)


def test_whole_differences_of_weights_biases_and_norms(tmp_path, draw):
    tensors = {
        "lora_unet_middle_block_1_proj_in.diff": draw(OUT, IN),
        "lora_unet_middle_block_1_proj_in.diff_b": draw(OUT),
        "diffusion_model.input_blocks.4.1.norm.w_norm": draw(OUT),
        "lycoris_up_blocks_0_resnets_0_norm1.b_norm": draw(OUT),
        "lora_te1_text_model_encoder_layers_0_layer_norm1.w_norm": draw(OUT),
        "unet.conv_out.diff": draw(4, IN, 3, 3),
    }
    params = [
        ("unet", "mid_block.attentions.0.proj_in.weight"),
        ("unet", "mid_block.attentions.0.proj_in.bias"),
        ("unet", "down_blocks.1.attentions.0.norm.weight"),
        ("unet", "up_blocks.0.resnets.0.norm1.bias"),
        ("text_encoder", "text_model.encoder.layers.0.layer_norm1.weight"),
        ("unet", "conv_out.weight"),
    ]
    lora = read(tmp_path, tensors)
    assert lora.others.keys() == set(params)
    for param, difference in zip(params, tensors.values()):
        assert torch.equal(delta(lora, param, torch.zeros(difference.shape)), difference)


@pytest.mark.parametrize("algorithm", ["lora", "lokr", "loha"])
@pytest.mark.parametrize("axis", [0, 1])
def test_magnitudes_of_rows_and_of_columns(axis, algorithm, tmp_path, draw):
    """LyCORIS' definition: the norms over all other axes of W + BA become dora_scale, whose shape says which axis."""
    weight = draw(OUT, IN, 3, 3)
    scale = draw(OUT, 1, 1, 1).abs() if axis == 0 else draw(1, IN, 1, 1).abs()
    down, up = draw(RANK, IN, 3, 3), draw(OUT, RANK, 1, 1)
    flat = up.flatten(1) @ down.flatten(1)
    if algorithm == "lora":
        parts, change = {"lora_down.weight": down, "lora_up.weight": up}, flat
    elif algorithm == "lokr":
        parts, change = {"lokr_w1": torch.ones(1, 1) / 3, "lokr_w2": flat.reshape(weight.shape)}, flat / 3
    else:
        twice = {"w1_a": up.flatten(1), "w1_b": down.flatten(1), "w2_a": up.flatten(1), "w2_b": down.flatten(1)}
        parts, change = {f"hada_{key}": each.clone() for key, each in twice.items()}, flat.square()
    change = change.reshape(weight.shape)
    tensors = {f"{KOHYA_CONV}.{key}": each for key, each in parts.items()}
    lora = read(
        tmp_path, tensors | {f"{KOHYA_CONV}.dora_scale": scale, f"{KOHYA_CONV}.alpha": torch.tensor(float(RANK))}
    )
    others = tuple(each for each in range(4) if each != axis)
    changed = weight + change
    expected = changed * scale / changed.square().sum(dim=others, keepdim=True).sqrt()
    param = ("unet", f"{CONV[1]}.weight")
    torch.testing.assert_close(weight + delta(lora, param, weight), expected, atol=1e-4, rtol=1e-4)
    ((_, module),) = lora.changes()
    assert torch.equal(module.delta(weight, 0.0), torch.zeros_like(weight)), "at strength 0 it is the base"
    torch.testing.assert_close(module.delta(weight, 0.5) * 2, module.delta(weight))
    if algorithm == "lora":
        write_lora(tmp_path / "again.safetensors", lora)
        again = read_lora(tmp_path / "again.safetensors").modules[CONV]
        assert (again.axis, torch.equal(again.magnitude, scale.flatten())) == (axis, True)


def test_column_magnitudes_have_no_form_in_diffusers(tmp_path, draw):
    lora = Lora({PROJ: LoraModule(draw(RANK, IN), draw(OUT, RANK), 1.0, draw(IN), 1)})
    with pytest.raises(InputError, match="a DoRA by input channels has no form in diffusers' dialect"):
        write_lora(tmp_path / "x.safetensors", lora, "diffusers")


@pytest.mark.parametrize(
    "name", ["bundle_emb.word.string_to_param.clip_l", "bundle_emb.word.clip_g", "clip_l", "emb_params"]
)
def test_embeddings_beside_a_lora_are_named_as_unused(name, tmp_path, draw):
    said = []
    tensors = {f"unet.{PROJ[1]}.lora_{role}.weight": draw(4, 4) for role in "AB"}
    with showing(said.append):
        lora = read(tmp_path, tensors | {name: draw(2, 8)}, alpha="rank")
    assert [*lora.modules] == [PROJ]
    assert any(name in note.text and "not used" in note.text for note in said)
    (left_out,) = left_out_of([ScaledLora(tmp_path / "a.safetensors", lora, 1.0)])
    assert name in left_out.why and "not used" in left_out.why


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], "a LoRA of FLUX"),
        (["transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight"], "a LoRA of FLUX"),
        (["lora_unet_joint_blocks_3_context_block_attn_qkv.lora_down.weight"], "a LoRA of SD 3"),
        (["diffusion_model.blocks.0.cross_attn.k.lora_A.weight"], "a transformer in place of the UNet"),
        (["transformer.blocks.0.attn.lora_A.weight"], "a transformer in place of the UNet"),
        (["lora_prior_unet_down_blocks_0_1_attn.lora_down.weight"], "Stable Cascade"),
        (["down_blocks.0.motion_modules.0.to_q.lora_A.weight"], "AnimateDiff"),
        (["lora_unet_input_blocks_4_1_proj_in.oft_blocks", "lora_unet_input_blocks_4_1_proj_in.alpha"], "OFT"),
        (["lora_unet_input_blocks_4_1_proj_in.a1.weight", "lora_unet_input_blocks_4_1_proj_in.b2.weight"], "GLoRA"),
        (["lora_unet_input_blocks_4_1_proj_in.weight", "lora_unet_input_blocks_4_1_proj_in.on_input"], "(IA)^3"),
        (["unet.mid_block.attentions.0.proj_in.vera_lambda_b"], "VeRA"),
        (["unet.mid_block.attentions.0.proj_in.lora_B.bias"], "biases of its own"),
        (["lora_controlnet", "input_blocks.0.0.weight"], "a ControlNet"),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight"], "a whole model, no LoRA"),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], "a UNet, no LoRA"),
        (["encoder.conv_in.weight"], "a VAE, no LoRA"),
        (["first_stage_model.decoder.conv_in.weight"], "a VAE, no LoRA"),
        (["lora_unet_input_blocks_4_1_proj_in.lora_side.weight"], "a LoRA of SDXL in a spelling that is not known"),
        (["unet.mid_block.attentions.0.proj_in.lora_C.weight"], "a LoRA of SDXL in a spelling that is not known"),
        (["down_blocks.7.attentions.0.proj_in.lora_A.weight"], "belong to no module of SDXL"),
        (["clip_l", "clip_g"], "an embedding (textual inversion), no LoRA"),
        (["lora_unet_down_blocks_0_attentions_9_proj_in.lora_down.weight"], "belong to no module of SDXL"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_its_name(names, said, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, {name: torch.ones(2, 2) for name in names})
    message = str(error.value)
    assert said in message and any(name in message for name in names)
    assert "\n" not in message and message.count("; ") >= 1


def test_a_lora_of_the_refiner(tmp_path):
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    with pytest.raises(InputError, match="a LoRA of the SDXL refiner"):
        read(tmp_path, {f"{name}.lora_down.weight": torch.ones(2, 1280), f"{name}.lora_up.weight": torch.ones(4, 2)})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"lokr_w1": (2, 2)}, "has no lokr_w2_a and no lokr_w2_b tensor"),
        ({"hada_w1_a": (4, 2), "hada_w1_b": (2, 4)}, "has no hada_w2_a and no hada_w2_b tensor"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (2, 3), "lokr_w2_b": (2, 2)}, "2 x 3 and 2 x 2 do not fit together"),
        (dict(zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), [(4, 2), (2, 4), (4, 2), (2, 5)])), "shapes"),
        ({"lora_down.weight": (2, 4), "lora_up.weight": (4, 3), "lora_mid.weight": (3, 2, 3, 3)}, "mid and down"),
        ({"lora_down.weight": (2, 4), "lora_up.weight": (4, 2), "dora_scale": (3, 1)}, "3 magnitudes for 4 rows"),
        ({"diff": (4, 4), "lokr_w1": (2, 2), "lokr_w2": (2, 2)}, "two changes of its weight"),
        ({"lokr_w1": (2, 2), "lokr_w2": (2, 2), "lora_down.weight": (2, 4)}, "holds down beside"),
        (
            {"lokr_w1": (2, 2), "lokr_w2": (2, 2), "lokr_w2_a": (2, 1), "lokr_w2_b": (1, 2)},
            "holds lokr_w2_a, lokr_w2_b beside",
        ),
        (
            {"lora_down.weight": (2, 4), "lora_up.weight": (4, 2), "dora_scale": (4, 1), "lora_magnitude_vector": (4,)},
            "two",
        ),
        ({"diff": (4,), "w_norm": (4,)}, "two changes of its weight"),
        ({"lokr_w1": (2,), "lokr_w2_a": (2, 3), "lokr_w2_b": (3,)}, "do not fit together"),
    ],
)
def test_damaged_factors(parts, said, tmp_path):
    tensors = {f"lora_unet_middle_block_1_proj_in.{key}": torch.ones(shape) for key, shape in parts.items()}
    with pytest.raises(InputError, match=said):
        read(tmp_path, tensors)


def test_fusing_and_drawing_use_them_and_the_commands_for_loras_say_so(tmp_path, tiny_sdxl, draw):
    linear, conv = "lora_unet_middle_block_1_proj_in", KOHYA_CONV
    tensors = {
        f"{linear}.lokr_w1": draw(4, 4) / 9, f"{linear}.lokr_w2": draw(16, 16) / 9, f"{linear}.diff_b": draw(64) / 9,
        f"{conv}.hada_w1_a": draw(64, 2) / 9, f"{conv}.hada_w1_b": draw(2, 576), f"{conv}.hada_w2_a": draw(64, 2) / 9,
        f"{conv}.hada_w2_b": draw(2, 576), "lora_te1_text_model_final_layer_norm.w_norm": draw(32),
    }  # fmt: skip
    lora = read(tmp_path, tensors)
    with pytest.raises(InputError, match="4 of its changes are no LoRA of a layer"):
        write_lora(tmp_path / "x.safetensors", lora)
    file = str(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="foreign.safetensors: 4 of its changes"):
        convert(Convert(file=file, out=tmp_path / "x.safetensors"))
    config = fuse.Config(base=str(tiny_sdxl), lora=(f"{file}:0.5",), out=tmp_path / "fused", dtype="fp32", verify=True)
    report = fuse.run(config)
    assert max(report.differences.values()) < 1e-6 and report.differences.keys() == {"unet", "text_encoder"}
    before, after = (weights(folder, "unet") for folder in (tiny_sdxl, tmp_path / "fused"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        "mid_block.attentions.0.proj_in.weight",
        "mid_block.attentions.0.proj_in.bias",
        f"{CONV[1]}.weight",
    }
    difference = after["mid_block.attentions.0.proj_in.weight"] - before["mid_block.attentions.0.proj_in.weight"]
    expected = kron_blocks(tensors[f"{linear}.lokr_w1"], tensors[f"{linear}.lokr_w2"]) / 2
    torch.testing.assert_close(difference, expected, atol=1e-6, rtol=1e-5)
    base = open_base(tiny_sdxl, ("unet", "text_encoder"))
    attach(base, lora, 0.5)
    torch.testing.assert_close(base.unet.state_dict()[f"{CONV[1]}.weight"], after[f"{CONV[1]}.weight"])
    wrong = Lora({}, others={("unet", f"{CONV[1]}.weight"): FullModule("full difference", ((draw(3, 3),),))})
    with pytest.raises(InputError, match="1 of 1 modules do not fit"):
        attach(base, wrong)
