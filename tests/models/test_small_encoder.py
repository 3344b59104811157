"""Smaller text encoders: words of captions are tokenized as before, and what stays computes what it did."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl_mel.errors import InputError
from sdxl_mel.files.tokenizer import public_tokenizer
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.small_encoder import encoder_layers, kept_layers, smaller_encoder, smaller_tokenizer
from tests.true_size import meta_sdxl

CAPTIONS = [
    "mel spectrogram, a slow baroque chorale in a major key, melody on cello over sitar",
    "Instrumental, drum'n'bass at 174 BPM, café déjà-vu",
    "",
]


@pytest.fixture(scope="module", params=["<|endoftext|>", "!"])
def tokenizers(request):
    whole = public_tokenizer(request.param)
    return whole, *smaller_tokenizer(whole, CAPTIONS)


def _ids(tokenizer, text):
    return tokenizer(text, padding="max_length", truncation=True).input_ids


@pytest.mark.parametrize("text", [*CAPTIONS, "baroque cello, slow", "sitar over cello"])
def test_words_of_captions_have_the_tokens_that_they_had(tokenizers, text):
    whole, small, tokens = tokenizers
    assert len(small) == len(tokens) < 700
    assert [tokens[number] for number in _ids(small, text)] == _ids(whole, text)


def test_other_words_are_spelt_out_in_smaller_pieces(tokenizers):
    whole, small, _ = tokenizers
    text = "xylophone, 叉"
    assert len(small.tokenize(text)) > len(whole.tokenize(text))
    assert whole.convert_tokens_to_string(small.tokenize(text)) == whole.convert_tokens_to_string(whole.tokenize(text))


def test_a_base_that_is_stored_in_half_precision_is_trained_in_float32(tokenizers):
    """Its config names float16, in which transformers would make all but the projection."""
    whole, small, tokens = tokenizers
    config = CLIPTextConfig(
        vocab_size=len(whole), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    config.dtype = torch.float16
    encoder = CLIPTextModelWithProjection(config).float()
    assert {each.dtype for each in smaller_encoder(encoder, (0, 1), tokens, small).parameters()} == {torch.float32}


def test_all_layers_with_the_tokens_of_captions_compute_what_they_did(tokenizers):
    whole, small, tokens = tokenizers
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(whole), hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2
    )
    encoder = CLIPTextModel(config).eval()
    same = smaller_encoder(encoder, range(4), tokens, small).eval()
    three = smaller_encoder(encoder, (0, 2, 3), tokens, small).eval()
    with torch.no_grad():
        before, after, fewer = (
            model(torch.tensor([_ids(tokenizer, CAPTIONS[0])]), output_hidden_states=True)
            for model, tokenizer in ((encoder, whole), (same, small), (three, small))
        )
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)
    assert torch.equal(before.hidden_states[1], fewer.hidden_states[1])
    assert len(fewer.hidden_states) == 4
    assert torch.equal(encoder_layers(three)[1].mlp.fc1.weight, encoder_layers(encoder)[2].mlp.fc1.weight)
    assert same.config.eos_token_id == small.eos_token_id


def test_the_last_layer_stays_whatever_it_changes():
    assert kept_layers([0.5, 0.1, 0.9, 0.2, 0.0], 3) == [0, 2, 4]
    assert kept_layers([0.5, 0.1], 2) == [0, 1]
    for count in (1, 6):
        with pytest.raises(InputError, match=f"found {count}; this text encoder has 5, so 2 to 5"):
            kept_layers([0.5, 0.1, 0.9, 0.2, 0.0], count)


@pytest.mark.parametrize(
    ("layers", "tokens", "millions", "share"),
    [
        ((12, 32), 49408, (123.1, 694.7), 1.0),
        ((3, 8), 2000, (22.9, 161.7), 0.23),
        ((2, 4), 2000, (15.8, 83.0), 0.12),
        ((3, 8), 49408, (59.3, 222.4), 0.34),
    ],
)
def test_sizes_of_sdxls(tokenizers, layers, tokens, millions, share):
    whole = meta_sdxl()
    encoders = [whole[part] for part in TEXT_ENCODERS]
    with torch.device("meta"):
        small = [
            smaller_encoder(encoder, range(count), range(tokens), tokenizers[0])
            for encoder, count in zip(encoders, layers)
        ]
    sizes = [sum(each.numel() for each in encoder.parameters()) / 1e6 for encoder in small]
    assert sizes == pytest.approx(millions, abs=0.1)
    assert sum(sizes) / 817.7 == pytest.approx(share, abs=0.005)
