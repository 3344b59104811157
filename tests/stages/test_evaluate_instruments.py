"""Which instruments a prompt names."""

import pytest

from sdxl_mel.evaluation.instruments import named_instruments


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("instrumental, clarinet and flute, slow", ("clarinet", "flute")),
        ("instrumental, pan flute and flute", ("pan flute", "flute")),
        ("a slow tune for Pan Flute", ("pan flute",)),
        ("church organ melody with harp harmony, church organ and harp", ("church organ", "harp")),
        ("harpsichord", ("harpsichord",)),
        ("music", ()),
    ],
)
def test_named_instruments(prompt: str, names: tuple[str, ...]) -> None:
    assert named_instruments(prompt) == names
