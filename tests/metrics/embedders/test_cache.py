import numpy as np
import pytest

from sdxl_mel.metrics.embedders.cache import EmbeddingCache

IDENTITY = {"weights": "a", "rate": "16000"}


def windows(value=1.0):
    return np.full((3, 4), value, np.float32)


def test_what_is_saved_is_read_again(tmp_path):
    cache = EmbeddingCache(tmp_path, "model", IDENTITY)
    cache["one"] = windows()
    cache.save()
    again = EmbeddingCache(tmp_path, "model", IDENTITY)
    assert "one" in again
    assert "two" not in again
    assert np.array_equal(again["one"], windows())


def test_other_weights_are_another_cache(tmp_path):
    cache = EmbeddingCache(tmp_path, "model", IDENTITY)
    cache["one"] = windows()
    cache.save()
    assert "one" not in EmbeddingCache(tmp_path, "model", IDENTITY | {"weights": "b"})


def test_the_same_content_makes_the_same_bytes(tmp_path):
    caches = [EmbeddingCache(tmp_path / name, "model", IDENTITY) for name in "ab"]
    for cache, order in zip(caches, ("xy", "yx"), strict=True):
        for key in order:
            cache[key] = windows(ord(key))
        cache.save()
    assert caches[0].path.read_bytes() == caches[1].path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_corrupt_cache_is_reported_and_made_again(tmp_path, capsys, damage):
    cache = EmbeddingCache(tmp_path, "model", IDENTITY)
    cache["one"] = windows()
    cache.save()
    content = cache.path.read_bytes()
    cache.path.write_bytes({"cut": content[:-8], "text": b"hello", "empty": b""}[damage])
    again = EmbeddingCache(tmp_path, "model", IDENTITY)
    assert "one" not in again
    assert "damaged" in capsys.readouterr().err
    again["one"] = windows()
    again.save()
    assert "one" in EmbeddingCache(tmp_path, "model", IDENTITY)


def test_entries_that_are_no_embeddings_are_not_used(tmp_path):
    cache = EmbeddingCache(tmp_path, "model", IDENTITY)
    cache["nan"] = windows(np.nan)
    cache["flat"] = np.ones(3, np.float32)
    cache["good"] = windows()
    cache.save()
    again = EmbeddingCache(tmp_path, "model", IDENTITY)
    assert ["nan" in again, "flat" in again, "good" in again] == [False, False, True]
