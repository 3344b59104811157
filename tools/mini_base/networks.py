"""The networks of the mini base: the architecture of SDXL at a hundredth of its size."""

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.mini_base.words import WORDS

TEXT_WIDTH = 128
TEXT_LAYERS = 3
TIME_IDS = 6
ADDITION_WIDTH = 32
LATENT_WIDTH = 32
EMBEDDING_STD = 0.1
"""Words that no caption of the training set holds keep embeddings of the length of those that were trained."""


def new_vae() -> AutoencoderKL:
    """Return an AutoencoderKL of 8 x 8 pixels a latent, most of its weights where the picture is small."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 128, 160),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=0.13025,
        force_upcast=False,
    )


def new_unet() -> UNet2DConditionModel:
    """Return SDXL's UNet: no attention at the finest level, `text_time` conditioning."""
    return UNet2DConditionModel(
        sample_size=LATENT_WIDTH,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 1),
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=ADDITION_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTH + TIME_IDS * ADDITION_WIDTH,
        norm_num_groups=16,
    )


def new_text_encoders(vocabulary: int) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Return both text encoders; as in SDXL the second one has a projection, and another activation."""
    first = CLIPTextModel(_text_config(vocabulary, "quick_gelu"))
    second = CLIPTextModelWithProjection(_text_config(vocabulary, "gelu"))
    for encoder in (first, second):
        encoder.get_input_embeddings().weight.data.normal_(std=EMBEDDING_STD)
    return first, second


def new_scheduler() -> EulerDiscreteScheduler:
    """Return the scheduler of SDXL 1.0."""
    return EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="leading",
        steps_offset=1,
    )


def new_tokenizer(pad: str) -> CLIPTokenizer:
    """Return a CLIP tokenizer that holds the words of music as single tokens and spells out every other one.

    The merges of a word are added from what the merges so far make of it. Later merges rank lower, so that a word
    that was whole stays whole.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    ranks: dict[tuple[str, str], int] = {}
    for word in WORDS:
        parts = _merged([*word[:-1], word[-1] + "</w>"], ranks)
        while len(parts) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
            tokens.append(parts[0] + parts[1])
            parts = _merged(parts, ranks)
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(ranks),
        pad_token=pad,
        model_max_length=77,
    )


def _merged(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Return what byte-pair encoding makes of `parts`: the merge of the lowest rank first, everywhere it fits."""
    while True:
        known = [(ranks[pair], pair) for pair in zip(parts, parts[1:]) if pair in ranks]
        if not known:
            return parts
        _, (left, right) = min(known)
        joined: list[str] = []
        for part in parts:
            if joined and joined[-1] == left and part == right:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined


def _text_config(vocabulary: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=4,
        projection_dim=TEXT_WIDTH,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        hidden_act=activation,
    )
