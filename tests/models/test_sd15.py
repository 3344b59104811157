"""SD 1.5 as a base: what diffusers' own loaders make of the same files is the judge, as it is for SDXL."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from sdxl_mel.diffusion.conditioning import unet_conditions
from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.families import family_of_configs, family_of_file
from sdxl_mel.models.fuse_verify import probe
from sdxl_mel.models.header import header_metadata, read_model_header
from sdxl_mel.models.layouts import Architecture, canonical
from sdxl_mel.models.lora.adapters import select_targets
from sdxl_mel.models.lora.file import Lora, LoraHeader, read_lora, write_lora
from sdxl_mel.models.sd15 import SD15
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.models.text_encoding import encode_prompts, tokens_lost
from sdxl_mel.stages.fuse import Config, run
from tests.checkpoints import edit_json, write_single_file
from tests.loras import attach, random_lora_modules
from tests.true_size import meta_sd15

PARTS = ("unet", "vae", "text_encoder")
DIALECTS = ("kohya", "diffusers")
TEXTS = ["mel spectrogram, violin", "", "a word! and more words than seventy-seven bytes have room for, " * 3]


@pytest.fixture(scope="module")
def single(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single_file(tiny_sd15, tmp_path_factory.mktemp("single") / "model.safetensors")


@pytest.fixture(scope="module")
def pipeline(tiny_sd15: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_sd15)


@pytest.fixture(scope="module")
def base(tiny_sd15: Path) -> Base:
    return open_base(tiny_sd15)


@pytest.fixture(scope="module")
def lora(pipeline: StableDiffusionPipeline) -> Lora:
    """Ranks differ by module, alpha is none of them, convolutions are in; proj_in and proj_out are convolutions."""
    modules = random_lora_modules(pipeline, rank=4, alpha=1.5, convolutions=True)
    other = random_lora_modules(pipeline, rank=2, alpha=1.5, convolutions=True)
    chosen = {key: (other if index % 3 else modules)[key] for index, key in enumerate(modules)}
    return Lora(chosen, LoraHeader(architecture=Architecture(SD15)))


def weights_of(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": t for part in PARTS for name, t in getattr(pipeline, part).state_dict().items()}


def test_a_folder_and_a_single_file_are_what_diffusers_loads(
    base: Base, single: Path, tiny_sd15: Path, pipeline: StableDiffusionPipeline
) -> None:
    theirs = StableDiffusionPipeline.from_single_file(single, config=str(tiny_sd15), safety_checker=None)
    ours = open_base(single)
    assert ours.family is base.family is SD15
    assert base.text_encoder_2 is None and base.tokenizer_2 is None and len(base.text_encoders) == 1
    assert ours.identity == base.identity and set(base.identity) == set(PARTS)
    for part in PARTS:
        expected = getattr(pipeline, part).state_dict()
        for loaded in (getattr(theirs, part), ours.models[part], base.models[part]):
            state = loaded.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert type(base.scheduler) is type(pipeline.scheduler)


def test_text_is_encoded_as_the_pipeline_does(base: Base, pipeline: StableDiffusionPipeline) -> None:
    expected, _ = pipeline.encode_prompt(TEXTS, "cpu", 1, False)
    ours = encode_prompts(base, TEXTS)
    torch.testing.assert_close(ours.prompt_embeds, expected, rtol=0, atol=1e-6)
    assert ours.pooled_prompt_embeds.shape == (len(TEXTS), 0)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_a_skipped_layer_is_as_if_it_were_not_there(base: Base, tiny_sd15: Path, clip_skip: int) -> None:
    """The rule of A1111: the encoder without its last layers, the final norm after what is left."""
    shorter = CLIPTextModel.from_pretrained(tiny_sd15 / "text_encoder", num_hidden_layers=3 - clip_skip)
    ids = base.tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    expected = shorter(ids).last_hidden_state
    torch.testing.assert_close(encode_prompts(base, TEXTS, clip_skip).prompt_embeds, expected, rtol=0, atol=1e-6)


def test_a_clip_skip_beyond_the_layers_and_tokens_beyond_the_encoder(base: Base) -> None:
    with pytest.raises(InputError, match=r"3 layers, so 0 to 2"):
        encode_prompts(base, ["x"], clip_skip=3)
    assert list(tokens_lost(base.reading_tokenizer(), ["x" * 75, "x" * 80])) == [0, 5]


def test_the_unet_is_told_the_text_alone(base: Base) -> None:
    assert SD15.time_ids(128, 256) is None
    assert unet_conditions(encode_prompts(base, ["x"]), None).keys() == {"encoder_hidden_states"}
    sizes = SDXL.time_ids(128, 256)
    assert unet_conditions(encode_prompts(base, ["x", "y"]), sizes)["added_cond_kwargs"]["time_ids"].shape == (2, 6)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_diffusers_does_with_our_lora_what_our_adapters_do(
    dialect: str, tmp_path: Path, tiny_sd15: Path, pipeline: StableDiffusionPipeline, lora: Lora
) -> None:
    write_lora(tmp_path / "lora.safetensors", lora, dialect)
    again = read_lora(tmp_path / "lora.safetensors")
    assert again.family is SD15 and again.modules.keys() == lora.modules.keys()
    adapted = open_base(tiny_sd15, ("unet", "text_encoder"))
    attach(adapted, again)
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    for part in ("unet", "text_encoder"):
        ours, theirs = probe(part, adapted.models[part]), probe(part, getattr(pipeline, part))
        assert float((theirs - ours).norm() / ours.norm()) <= 1e-5
    pipeline.unload_lora_weights()


def test_kohyas_file_has_the_names_of_its_scripts(tmp_path: Path, lora: Lora) -> None:
    """sd-scripts names SD 1.5's modules after diffusers (networks/lora.py), its text encoder lora_te."""
    write_lora(tmp_path / "lora.safetensors", lora)
    names = load_file(tmp_path / "lora.safetensors")
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight" in names
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in names
    assert names["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"].ndim == 4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_foreign_lora_is_recognised_by_its_modules(dialect: str, tmp_path: Path, lora: Lora) -> None:
    write_lora(tmp_path / "ours.safetensors", lora, dialect)
    save_file(load_file(tmp_path / "ours.safetensors"), tmp_path / "foreign.safetensors")
    assert read_lora(tmp_path / "foreign.safetensors", alpha="rank").family is SD15


@pytest.mark.parametrize(("width", "family"), [(768, SD15), (2048, SDXL), (64, SDXL)])
def test_the_width_of_the_text_decides_where_modules_do_not(width: int, family: object, tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {"lora_down.weight": torch.ones(4, width), "lora_up.weight": torch.ones(320, 4), "alpha": torch.ones(())}
    save_file({f"{name}.{key}": tensor for key, tensor in tensors.items()}, tmp_path / "lora.safetensors")
    assert read_lora(tmp_path / "lora.safetensors").family is family


def test_numbers_of_the_original_layout_are_read_too(tmp_path: Path) -> None:
    """Read in the key list of v1-5-pruned: the first up block has no attention, so its upsampler is number 1."""
    architecture = Architecture(SD15)
    known = {
        "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
        "down_blocks.3.resnets.1.conv2": "input_blocks.11.0.out_layers.3",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.3.attentions.2.proj_out": "output_blocks.11.1.proj_out",
    }
    for diffusers, original in known.items():
        assert architecture.to_original("unet", diffusers) == original
        assert architecture.to_diffusers("unet", original.replace(".", "_"), "original", "_") == diffusers


def test_the_counts_of_sd15_at_its_true_size() -> None:
    """v1-5-pruned-emaonly holds 1,130 tensors of models beside positions: 686 UNet, 248 VAE, 196 encoder."""
    models, architecture, places = meta_sd15(), Architecture(SD15), set()
    for part, model in models.items():
        for name, _ in model.named_parameters():
            param = part, canonical(part, name)
            stored = architecture.stored_as(param)
            assert stored is not None and param in architecture.kept_in(stored.name), name
            places.add(stored.name)
    assert len(places) == 686 + 248 + 196
    assert {part: sum(each.numel() for each in model.parameters()) for part, model in models.items()} == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
    }
    # sd-scripts makes 192 modules for its UNet and 72 for its text encoder.
    assert [len(select_targets(models["unet"], "unet", [each])) for each in ("all-linear", "attention")] == [192, 128]
    assert len(select_targets(models["text_encoder"], "text_encoder", ["all-linear"])) == 72


@pytest.mark.parametrize("out", ["fused", "fused.safetensors"])
@pytest.mark.parametrize("source", ["folder", "single file"])
def test_a_fused_model_is_base_plus_lora_in_diffusers(
    out: str, source: str, tiny_sd15: Path, single: Path, lora: Lora, pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora.safetensors", lora)
    given = tiny_sd15 if source == "folder" else single
    run(Config(base=str(given), lora=(f"{tmp_path}/lora.safetensors:0.5",), out=tmp_path / out))
    if out == "fused":
        fused = StableDiffusionPipeline.from_pretrained(tmp_path / out)
    else:
        fused = StableDiffusionPipeline.from_single_file(tmp_path / out, config=str(tiny_sd15), safety_checker=None)
    loaded, expected = weights_of(fused), weights_of(pipeline)
    for (part, path), module in lora.modules.items():
        name = f"{part}.{path}.weight"
        name = name if name in expected else name.replace("text_model.", "")
        expected[name] = expected[name] + 0.5 * module.product()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(loaded[name], tensor, atol=1e-6, rtol=1e-5)
    header = read_model_header(tmp_path / out)
    assert header.architecture == Architecture(SD15)
    assert open_base(tmp_path / out, ("unet",), config=tiny_sd15).family is SD15


def test_a_safety_checker_is_left_out_of_what_is_fused(tiny_sd15: Path, lora: Lora, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_sd15, tmp_path / "base"))
    edit_json(
        base / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    write_lora(tmp_path / "lora.safetensors", lora)
    run(Config(base=str(base), lora=(str(tmp_path / "lora.safetensors"),), out=tmp_path / "fused"))
    assert json.loads((tmp_path / "fused/model_index.json").read_text())["safety_checker"] == [None, None]
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "fused").safety_checker is None


def test_files_say_what_they_are(tmp_path: Path, lora: Lora) -> None:
    from safetensors import safe_open

    write_lora(tmp_path / "lora.safetensors", lora)
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_v2"] == "False"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.resolution"] == "512x512"
    assert header_metadata(lora.header, "title")["modelspec.architecture"] == "stable-diffusion-v1"


def test_a_lora_of_the_wrong_family_is_refused_by_name(
    base: Base, tiny_sd15: Path, tiny_sdxl: Path, lora: Lora, tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora.safetensors", lora)
    settings = {"base": str(tiny_sdxl), "lora": (str(tmp_path / "lora.safetensors"),), "out": tmp_path / "fused"}
    with pytest.raises(MismatchError, match=r"lora\.safetensors: a LoRA of SD 1\.5, .*tiny-sdxl0 is SDXL"):
        run(Config(**settings))


@pytest.mark.parametrize(
    ("unet", "pipeline_class", "words"),
    [
        ({"cross_attention_dim": 1024}, "StableDiffusionPipeline", "this is SD 2.x"),
        ({"use_linear_projection": True}, "", "this is SD 2.x"),
        ({"in_channels": 9}, "StableDiffusionInpaintPipeline", "an inpainting model of SD 1.5"),
        ({"in_channels": 8}, "StableDiffusionPipeline", "not SD 1.5-shaped: its UNet has 8 channels in"),
        ({}, "StableDiffusion3Pipeline", "a StableDiffusion3Pipeline"),
    ],
)
def test_relatives_are_named(unet: dict[str, object], pipeline_class: str, words: str) -> None:
    configs = {"unet": {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 768} | unet}
    with pytest.raises(InputError, match=rf"{words}.*needed is .*SD 1\.5 or a fine-tune of it"):
        family_of_configs(configs, pipeline_class, "models/other")


def test_an_inpainting_file_is_named() -> None:
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    }
    with pytest.raises(InputError, match=r"an inpainting model of SD 1\.5; needed is"):
        family_of_file(shapes, Path("inpaint.safetensors"))


def test_configs_of_another_family_are_refused(single: Path, tiny_sdxl: Path) -> None:
    with pytest.raises(InputError, match=r"configs of SDXL, model\.safetensors is SD 1\.5; give configs of its kind"):
        open_base(single, config=tiny_sdxl)
