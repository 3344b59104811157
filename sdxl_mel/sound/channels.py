"""From any number of channels to one or two, by a stated rule."""

import numpy as np

from sdxl_mel.sound.mel import Float

_HALF = 2.0**-0.5
_LEFT_OF_LAYOUT = {
    3: (1.0, 0.0, _HALF),
    4: (1.0, 0.0, _HALF, 0.0),
    5: (1.0, 0.0, _HALF, _HALF, 0.0),
    6: (1.0, 0.0, _HALF, 0.0, _HALF, 0.0),
    8: (1.0, 0.0, _HALF, 0.0, _HALF, 0.0, _HALF, 0.0),
}
"""What each channel of the WAV order (left, right, centre, LFE, surround pairs) gives to the left one; the right one
is its mirror. ITU-R BS.775-3, table 2: centre and surrounds at -3 dB, no LFE. Four channels are two pairs."""
_PAIRS = {3: ((0, 1),), 4: ((0, 1), (2, 3)), 5: ((0, 1), (3, 4)), 6: ((0, 1), (4, 5)), 8: ((0, 1), (4, 5), (6, 7))}


def downmixed(samples: Float, mono: bool) -> Float:
    """Return (channels, n) samples as (1, n) or (2, n).

    More than two channels of a known layout become two by ITU-R BS.775, of any other layout their mean. Two equal
    channels are one; with `mono` the mean of two.
    """
    count = samples.shape[0]
    if count > 2:
        samples = _to_stereo(samples) if count in _LEFT_OF_LAYOUT else samples.mean(axis=0, keepdims=True)
    if samples.shape[0] == 2 and np.array_equal(samples[0], samples[1]):
        samples = samples[:1]
    if samples.shape[0] == 2 and mono:
        samples = samples.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _to_stereo(samples: Float) -> Float:
    count = samples.shape[0]
    left = np.array(_LEFT_OF_LAYOUT[count])
    right = left.copy()
    for one, other in _PAIRS[count]:
        right[[one, other]] = right[[other, one]]
    return (np.stack([left, right]) / left.sum()).astype(np.float32) @ samples
