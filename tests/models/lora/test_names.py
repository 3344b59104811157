import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl_mel.models.families import FAMILIES
from sdxl_mel.models.family import ADAPTABLE, Part
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.sdxl import SDXL
from tests.loras import linear_paths, meta_sdxl_unet
from tests.tiny_models import tiny_unet

NUMBERS = st.integers(0, 31)


def every_name(part: Part, number: int, architecture: Architecture) -> list[tuple[str, str]]:
    """Return all (diffusers, original) names of a part, read off the table, {n} replaced."""
    return [
        tuple(".".join(filter(None, rule)).format(n=number) for rule in zip((block.diffusers, block.original), pair))
        for block in architecture.modules(part).blocks
        for pair in block.leaves
    ]


@given(number=NUMBERS, part=st.sampled_from(ADAPTABLE), family=st.sampled_from(FAMILIES), layers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_the_table_is_a_bijection_in_every_spelling(number, part, family, layers):
    architecture = Architecture(family, layers)
    names = every_name(part, number, architecture)
    for column in (0, 1):
        spelt = [name[column] for name in names]
        assert len(set(spelt)) == len(spelt)
        assert len({name.replace(".", "_") for name in spelt}) == len(spelt)
    for diffusers, original in names[:: max(1, len(names) // 40)]:
        assert architecture.to_original(part, diffusers) == original
        for separator in (".", "_"):
            assert architecture.to_diffusers(part, original.replace(".", separator), "original", separator) == diffusers
            assert (
                architecture.to_diffusers(part, diffusers.replace(".", separator), "diffusers", separator) == diffusers
            )


def test_every_module_with_weights_of_the_unet_has_a_name():
    unet = tiny_unet()
    weighted = [name for name, module in unet.named_modules() if list(module.parameters(recurse=False))]
    originals = {Architecture(SDXL).to_original("unet", name) for name in weighted}
    assert None not in originals
    assert len(originals) == len(weighted)


def test_counts_at_the_true_shapes_of_sdxl():
    text = {"num_attention_heads": 8, "vocab_size": 49408}
    with torch.device("meta"):
        clip_l = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, **text))
        bigg = CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, **text)
        )
    models = {"unet": meta_sdxl_unet(), "text_encoder": clip_l, "text_encoder_2": bigg}
    paths = {part: linear_paths(part, model) for part, model in models.items()}
    assert {part: len(found) for part, found in paths.items()} == {
        "unet": 722,
        "text_encoder": 72,
        "text_encoder_2": 192,
    }
    for part, found in paths.items():
        assert len({Architecture(SDXL).to_original(part, path) for path in found} - {None}) == len(found)


@pytest.mark.parametrize(
    ("diffusers", "original"),
    [
        # Read in the key list of sd_xl_base_1.0 (Stability-AI/generative-models' sd_xl_base.yaml gives the same).
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.resnets.1.conv1", "input_blocks.8.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ],
)
def test_names_that_are_known(diffusers, original):
    assert Architecture(SDXL).to_original("unet", diffusers) == original


def test_a_text_encoder_without_its_prefix_gets_it():
    path = "text_model.encoder.layers.3.self_attn.q_proj"
    assert Architecture(SDXL).to_diffusers("text_encoder", path.removeprefix("text_model."), "diffusers") == path


@pytest.mark.parametrize("name", ["", "conv", "down_blocks.1.attentions.2.proj_in", "mid_block.attentions.0.proj_in.x"])
def test_what_sdxl_has_not_has_no_name(name):
    assert Architecture(SDXL).to_original("unet", name) is None
