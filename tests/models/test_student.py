"""Smaller UNets: what stays of a teacher, the shapes that can be, and the students of SDXL that ship as configs."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdxl_mel.config import read_toml
from sdxl_mel.errors import InputError
from sdxl_mel.models.student import StudentShape, nearest_frequencies, new_student, student_config, student_of
from tests.loras import meta_sdxl_unet
from tests.tiny_models import PROJECTION, WIDTH, tiny_unet

CONFIGS = Path(__file__).parents[2] / "configs" / "students"
TEXT = WIDTH + PROJECTION


def _given(unet):
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(2, 7, unet.config.cross_attention_dim, generator=generator)
    inputs = {"sample": torch.randn(2, 4, 8, 8, generator=generator), "timestep": torch.tensor([900, 100])}
    if unet.config.addition_embed_type:
        pooled = torch.randn(2, PROJECTION, generator=generator)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
    return inputs | {"encoder_hidden_states": text}


@torch.no_grad()
def _seen(unet):
    return unet(**_given(unet)).sample


def _teacher(slim: bool = True):
    torch.manual_seed(0)
    return tiny_unet(slim).eval()


def test_a_student_of_the_same_shape_is_the_teacher():
    teacher = _teacher()
    student = student_of(teacher, StudentShape(), lambda: _seen(teacher))
    assert torch.equal(_seen(student.unet), _seen(teacher))
    assert {each.student for each in student.features} == {each.teacher for each in student.features}


def test_transformer_layers_that_change_nothing_are_those_that_go():
    teacher = _teacher(slim=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in teacher.modules():
            blocks = getattr(module, "transformer_blocks", ())
            dead = torch.randperm(len(blocks), generator=generator)[2:] if len(blocks) > 2 else ()
            for index in dead:
                for last in (blocks[index].attn1.to_out[0], blocks[index].attn2.to_out[0], blocks[index].ff.net[2]):
                    last.weight.zero_()
                    last.bias.zero_()
    student = student_of(teacher, StudentShape(transformer_layers_per_block=(1, 2, 2)), lambda: _seen(teacher))
    assert torch.allclose(_seen(student.unet), _seen(teacher), atol=1e-5)
    assert len(student.features) == 2 * 2 + 2 * 2 + 3 * 2 + 3 * 2 + 2


def test_channels_that_nothing_reads_are_those_that_go():
    """Every second hidden channel of the feed-forward layers is dead, and goes with half of all widths."""
    teacher = _teacher()
    with torch.no_grad():
        for name, module in teacher.named_modules():
            if name.endswith("ff.net.2"):
                module.weight[:, ::2] = 0.0
    half = tuple(width // 2 for width in teacher.config.block_out_channels)
    student = student_of(teacher, StudentShape(half), lambda: _seen(teacher))
    assert tuple(student.unet.config.block_out_channels) == half
    for name, module in student.unet.named_modules():
        if name.endswith("ff.net.2"):
            assert (module.weight.abs().sum(dim=0) > 0).all(), name
    assert _seen(student.unet).isfinite().all()


def test_fewer_layers_keep_the_first_ones_and_the_last_of_the_way_up():
    teacher = _teacher(slim=False)
    student = student_of(teacher, StudentShape(None, 1, (1, 1, 1)), lambda: _seen(teacher)).unet
    own, whole = dict(student.named_parameters()), dict(teacher.named_parameters())
    assert torch.equal(own["down_blocks.1.resnets.0.conv1.weight"], whole["down_blocks.1.resnets.0.conv1.weight"])
    assert torch.equal(own["up_blocks.1.resnets.1.conv1.weight"], whole["up_blocks.1.resnets.2.conv1.weight"])
    assert _seen(student).isfinite().all()


def test_without_the_middle_the_rest_is_as_it_was():
    teacher = _teacher()
    student = student_of(teacher, StudentShape(middle=False), lambda: _seen(teacher)).unet
    whole = dict(teacher.named_parameters())
    assert all(torch.equal(each, whole[name]) for name, each in student.named_parameters())
    assert not [name for name, _ in student.named_parameters() if name.startswith("mid_block")]


def test_sd15_whose_last_levels_are_of_one_width():
    torch.manual_seed(0)
    teacher = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    ).eval()
    same = student_of(teacher, StudentShape(), lambda: _seen(teacher)).unet
    assert torch.equal(_seen(same), _seen(teacher))
    narrow = student_of(teacher, StudentShape((8, 16, 32, 32)), lambda: _seen(teacher)).unet
    assert _seen(narrow).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (StudentShape((16, 16)), "2 levels; the teacher has 3"),
        (StudentShape((16, 16, 128)), "width 128 of level 2 is no multiple of 8 up to 64"),
        (StudentShape((12, 16, 32)), "width 12 of level 0"),
        (StudentShape((32, 32, 40)), "no whole number of heads of 16"),
        (StudentShape((32, 64, 64)), "width 64 of level 1"),
        (StudentShape((16, 32, 32)), "level 2 is as wide as the one before it"),
        (StudentShape(layers_per_block=2), "layers_per_block 2 is not 1 to 1"),
        (StudentShape(transformer_layers_per_block=(1, 1, 3)), "3 transformer layers of level 2"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape, message):
    with pytest.raises(InputError, match=message):
        student_config(_teacher().config, shape)


def test_a_random_student_has_the_same_shape_and_is_drawn_from_its_seed():
    teacher = _teacher()
    one, two, other = (new_student(teacher, StudentShape((16, 16, 32)), seed) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.conv_in.weight, other.conv_in.weight)


@pytest.mark.parametrize(("name", "millions"), [("165m", 171.3), ("330m", 335.7), ("700m", 678.6)])
def test_the_students_of_sdxl_have_the_sizes_of_their_names(name, millions):
    settings = read_toml(CONFIGS / f"sdxl-{name}.toml")["student"]
    shape = StudentShape(**{key: tuple(each) if isinstance(each, list) else each for key, each in settings.items()})
    with torch.device("meta"):
        student = UNet2DConditionModel.from_config(student_config(meta_sdxl_unet().config, shape))
    assert sum(each.numel() for each in student.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_frequencies_of_a_narrower_time_embedding_are_the_nearest():
    kept = nearest_frequencies(320, 192)
    assert len(kept) == 192
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[96] == 160
    for index, channel in enumerate(kept[:96]):
        assert abs(channel / 160 - index / 96) <= 0.5 / 160
