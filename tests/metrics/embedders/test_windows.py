import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.metrics.embedders.base import WindowRule

RULE = WindowRule(length=10, shortest=3)


@given(st.integers(1, 60))
def test_windows_hold_the_clip_in_order_and_no_silence(count):
    signal = np.arange(1, count + 1, dtype=np.float32)
    windows = RULE.cut(signal)
    whole = count // 10
    assert (windows[:whole].ravel() == signal[: whole * 10]).all()
    assert windows.min() > 0
    assert len(windows) == max(1, whole + (count % 10 >= 3))


def test_short_clip_is_repeated():
    assert RULE.cut(np.array([1, 2, 3], np.float32)).tolist() == [[1, 2, 3, 1, 2, 3, 1, 2, 3, 1]]


def test_short_tail_is_left_out_and_a_longer_one_repeated():
    assert len(RULE.cut(np.arange(12, dtype=np.float32))) == 1
    assert RULE.cut(np.arange(13, dtype=np.float32))[1].tolist() == [10, 11, 12] * 3 + [10]
