"""Views, turns and texts of long pieces, on models whose right answer is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.long_form import (
    JointPredictor,
    PromptTrack,
    columns_of,
    extend,
    moved,
    owners,
    place_views,
    section_weights,
    travel_weights,
)
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, Known
from sdxl_mel.errors import InputError

lengths = st.integers(1, 300)
widths = st.integers(2, 64)


@given(lengths, widths, st.integers(0, 63), st.booleans())
def test_views_cover_every_column_and_share_enough(length: int, width: int, overlap: int, loop: bool) -> None:
    if overlap >= width:
        with pytest.raises(InputError, match="does not fit"):
            place_views(length, width, overlap, loop)
        return
    starts = place_views(length, width, overlap, loop)
    covered = torch.cat([columns_of(start, width, length) for start in starts])
    assert set(covered.tolist()) == set(range(length))
    assert all(start + width - after >= overlap for start, after in zip(starts, starts[1:]))
    if not loop and length > width:
        assert starts[-1] + width == length


@given(lengths, widths, st.integers(0, 10), st.booleans())
def test_every_column_is_owned_by_a_view_that_covers_it(length: int, width: int, step: int, loop: bool) -> None:
    starts = place_views(length, width, width // 2, loop)
    owner = owners(starts, width, length, step)
    for view, start in enumerate(starts):
        covered = set(columns_of(start, width, length).tolist())
        assert set(torch.where(owner == view)[0].tolist()) <= covered


@given(lengths, widths, st.integers(1, 63), st.booleans(), st.integers(0, 5))
def test_moved_views_still_cover_every_column(length: int, width: int, overlap: int, loop: bool, seed: int) -> None:
    starts = place_views(length, width, min(overlap, width - 1), loop)
    found = moved(starts, width, length, torch.Generator().manual_seed(seed))
    assert len(found) == len(starts)
    covered = torch.cat([columns_of(start, width, length) for start in found])
    assert set(covered.tolist()) == set(range(length))
    if not loop:
        assert (found[0], found[-1]) == (starts[0], starts[-1])
        assert all(0 <= start <= max(0, length - width) for start in found)


def test_borders_of_moved_views_lie_anywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    for loop, inner in ((False, slice(1, -1)), (True, slice(None))):
        starts = place_views(160, 32, 16, loop)
        places = {start % 16 for _ in range(200) for start in moved(starts, 32, 160, generator)[inner]}
        assert places == set(range(16))


def test_views_take_turns_in_the_overlap_and_over_the_steps() -> None:
    starts = [0, 6]
    assert owners(starts, 10, 16, step=0).tolist() == [0] * 6 + [0, 1, 0, 1] + [1] * 6
    assert owners(starts, 10, 16, step=1).tolist() == [0] * 6 + [1, 0, 1, 0] + [1] * 6


def text(value: float, count: int = 1) -> TextEmbeddings:
    return TextEmbeddings(torch.full((count, 3, 2), value), torch.full((count, 5), value))


class ColumnModel:
    """A UNet that treats each column alone: the latents times the text's value. Records its batch sizes."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, latents: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **_: object) -> tuple[Tensor]:
        self.batches.append(len(latents))
        return (latents * encoder_hidden_states.mean(dim=(1, 2)).reshape(-1, 1, 1, 1),)


def predictor(model: ColumnModel, track: PromptTrack, loop: bool = False, **options) -> JointPredictor:
    denoiser = Denoiser(model, torch.zeros(6), text(0.0), Guidance(1.0))
    return JointPredictor(denoiser, track, 8, place_views(len(track.weights), 8, 4, loop), **options)


def canvas(length: int) -> Tensor:
    return torch.randn(1, 4, 2, length, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("merge", ["swap", "average", "roll"])
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("length", [5, 8, 9, 40, 43])
def test_a_model_of_single_columns_gives_the_same_on_views_as_on_the_whole(merge: str, loop: bool, length: int) -> None:
    track = PromptTrack(text(3.0), torch.ones(length, 1))
    model = ColumnModel()
    latents = canvas(length)
    for step in (0, 1):
        predicted = predictor(model, track, merge=merge, loop=loop)(latents, torch.tensor(1), step)
        torch.testing.assert_close(predicted, latents * 3)


def test_views_go_through_the_model_a_few_at_a_time() -> None:
    model = ColumnModel()
    predictor(model, PromptTrack(text(1.0), torch.ones(400, 1)), views_at_once=3)(canvas(400), torch.tensor(1), 0)
    assert max(model.batches) == 3
    assert sum(model.batches) == len(place_views(400, 8, 4))


def test_each_view_hears_its_section() -> None:
    both = TextEmbeddings(
        torch.cat([text(1.0).prompt_embeds, text(5.0).prompt_embeds]),
        torch.cat([text(1.0).pooled_prompt_embeds, text(5.0).pooled_prompt_embeds]),
    )
    track = PromptTrack(both, section_weights([0, 20], 40))
    latents = torch.ones(1, 4, 2, 40)
    predicted = predictor(ColumnModel(), track, merge="average")(latents, torch.tensor(1), 0)[0, 0, 0]
    assert predicted[:12].tolist() == [1.0] * 12
    assert predicted[28:].tolist() == [5.0] * 12
    assert (predicted.diff() >= -1e-6).all()


def test_travel_goes_evenly_from_one_text_to_the_other() -> None:
    weights = travel_weights(11)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(11))
    torch.testing.assert_close(weights[:, 1], torch.linspace(0, 1, 11))


@pytest.mark.parametrize("loop", [False, True])
def test_extend_gives_each_view_what_is_drawn_and_keeps_it(loop: bool) -> None:
    length, width = 30, 12
    starts = place_views(length, width, 4, loop)
    seen: list[list[int]] = []

    def draw(view: int, columns: Tensor, known: Known | None) -> Tensor:
        drawn = torch.full((1, 4, 2, len(columns)), float(view + 1))
        if known is None:
            return drawn
        seen.append([int(c) for c, free in zip(columns, known.strength.flatten()) if not free])
        return known.strength * drawn + (1 - known.strength) * known.latents

    for view, (piece, columns) in enumerate(extend(draw, length, starts, width)):
        assert (piece[..., :columns] > 0).all()
        assert columns == min(starts[view] + width, length)
    assert (piece > 0).all()
    first_views = torch.zeros(length)
    for view, start in reversed(list(enumerate(starts))):
        first_views[columns_of(start, width, length)] = view + 1
    torch.testing.assert_close(piece[0, 0, 0], first_views)
    assert all(len(columns) >= 4 for columns in seen)
    assert (0 in seen[-1]) == loop


def test_the_model_is_told_the_sizes_of_a_tile_for_every_view() -> None:
    told: list[Tensor] = []

    class Model(ColumnModel):
        def __call__(
            self, latents: Tensor, *_: object, added_cond_kwargs: dict[str, Tensor], **__: object
        ) -> tuple[Tensor]:
            told.append(added_cond_kwargs["time_ids"])
            return (latents,)

    sizes = torch.tensor([1.0, 2, 3, 4, 5, 6])
    denoiser = Denoiser(Model(), sizes, text(0.0), Guidance(2.0))
    denoiser.predict(canvas(8).expand(3, -1, -1, -1), torch.tensor(1), text(1.0, 3))
    assert told[0].tolist() == [sizes.tolist()] * 6
