import numpy as np
import pytest
import torch

from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder, clip_vectors, unit_rows
from sdxl_mel.metrics.embedders.clap import ClapEmbedder
from sdxl_mel.metrics.embedders.laion_checkpoint import convert
from sdxl_mel.metrics.embedders.registry import Sources, open_embedders
from tests.metrics.embedders.tiny_clap import (
    laion_state,
    tiny_model,
    write_laion_checkpoint,
    write_tiny_clap,
    write_tokenizer,
)

RATE = 48000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module")
def clap(folder):
    return ClapEmbedder(str(folder))


def sound(seconds, seed=0):
    generator = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * times) + 0.05 * generator.standard_normal(len(times))).astype(np.float32)


def test_both_layouts_give_equal_embeddings(clap, tmp_path):
    checkpoint = write_laion_checkpoint(tmp_path / "music_audioset_epoch_15_esc_90.14.pt", tiny_model())
    convert(checkpoint, tmp_path / "converted", str(write_tokenizer(tmp_path / "words")))
    converted = ClapEmbedder(str(tmp_path / "converted"))
    assert converted.family == "music_audioset"
    assert np.abs(converted.embed_audio(sound(10)) - clap.embed_audio(sound(10))).max() < 1e-5
    texts = ["soft piano", "a fast violin"]
    assert np.abs(converted.embed_text(texts) - clap.embed_text(texts)).max() < 1e-5


def test_agrees_with_transformers_own_path(folder, clap):
    from transformers import ClapModel, ClapProcessor

    model, processor = ClapModel.from_pretrained(folder).eval(), ClapProcessor.from_pretrained(folder)
    inputs = processor(audio=[sound(10)], text=["soft piano"], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        audio = model.get_audio_features(input_features=inputs["input_features"], is_longer=torch.tensor([[False]]))
        text = model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    # transformers 4 returns the vector, transformers 5 an output that holds it.
    vectors = [getattr(each, "pooler_output", each).numpy() for each in (audio, text)]
    assert np.allclose(unit_rows(clap.embed_audio(sound(10))), unit_rows(vectors[0]), atol=1e-5)
    assert np.allclose(unit_rows(clap.embed_text(["soft piano"])), unit_rows(vectors[1]), atol=1e-5)


def test_long_clips_are_cut_and_not_cropped_at_random(clap):
    long = sound(21.5)
    windows = clap.embed_audio(long)
    assert windows.shape[0] == 3
    assert np.array_equal(windows, clap.embed_audio(long))
    assert np.allclose(windows[1], clap.embed_audio(long[10 * RATE : 20 * RATE])[0], atol=1e-6)
    assert np.allclose(clip_vectors([windows]), unit_rows(windows.mean(0)[None]), atol=1e-6)


def test_fusion_models_are_deterministic_too(tmp_path):
    embedder = ClapEmbedder(str(write_tiny_clap(tmp_path / "fusion", truncation="fusion")))
    assert np.array_equal(embedder.embed_audio(sound(4)), embedder.embed_audio(sound(4)))


def test_it_has_a_text_side(clap):
    assert isinstance(clap, TextAudioEmbedder)
    assert clap.embed_text(["word " * 400]).shape == (1, 16)


def test_a_pickle_is_refused_with_the_way_to_convert(tmp_path):
    checkpoint = write_laion_checkpoint(tmp_path / "laion.pt", tiny_model())
    with pytest.raises(InputError, match="sdxl-mel convert-clap"):
        ClapEmbedder(str(checkpoint))


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_pickle_that_runs_code_is_not_opened(tmp_path, capsys):
    torch.save({"state_dict": laion_state(tiny_model()), "extra": Evil()}, tmp_path / "evil.pt")
    words = write_tokenizer(tmp_path / "words")
    with pytest.raises(FormatError, match="plain tensors and numbers.*print"):
        convert(tmp_path / "evil.pt", tmp_path / "out", str(words))
    assert "code ran" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["missing", "extra", "other", "text", "empty"])
def test_other_checkpoints_are_refused(tmp_path, change):
    words = write_tokenizer(tmp_path / "words")
    state = laion_state(tiny_model())
    match change:
        case "missing":
            del state["module.audio_branch.layers.0.blocks.0.mlp.fc1.weight"]
        case "extra":
            state["module.audio_branch.strange.weight"] = torch.zeros(2)
        case "other":
            state = {"unet.weight": torch.zeros(2)}
    path = tmp_path / "some.pt"
    torch.save({"state_dict": state}, path)
    if change in ("text", "empty"):
        path.write_bytes(b"hello" if change == "text" else b"")
    with pytest.raises(FormatError, match="some.pt"):
        convert(path, tmp_path / "out", str(words))


def test_absent_models_are_absent_and_say_how_to_get_them(tmp_path):
    opened, absent = open_embedders(("clap", "laion-clap", "mel"), Sources())
    assert [one.name for one in opened] == ["mel"]
    assert "convert-clap" in absent["clap"]
    with pytest.raises(MissingError, match="no such folder"):
        ClapEmbedder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="not a CLAP model"):
        ClapEmbedder(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="did you mean 'musicnn-msd'"):
        open_embedders(("musicnn-mds",), Sources())
