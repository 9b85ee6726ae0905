"""Frames and pictures of an explanation: what is edited, what the tiles show, how the animation runs."""

import dataclasses

import numpy as np
import pytest
import torch
from explain_toys import ToySubject, toy_attribute, toy_frames, toy_images, toy_styles
from PIL import Image

from fact_eval.explain.frames import IMAGES, LARGEST, STEPS, choose_images, film
from fact_eval.explain.page import sprite, write_pictures
from fact_eval.explain.sheet import (
    BAR,
    FRAME_MS,
    GAP,
    LAST_MS,
    LETTERS,
    NAMES,
    OTHER,
    TARGET,
    animate,
    draw_sweeps,
    fit,
    highlight,
    tile_size,
    to_picture,
    typical_image,
)
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8


@pytest.fixture(scope="module")
def frames():
    return toy_frames()


SUBJECT = ToySubject()


def shown(target: int) -> tuple[torch.Tensor, list[int]]:
    """Styles and indices of the images that show a target class."""
    images = toy_images()
    chosen = choose_images(images.predicted, target).tolist()
    return images.styles[chosen], [images.indices[i] for i in chosen]


def only(target: int, attributes: list, *, subject: ToySubject = SUBJECT, first: int = 0, **options):
    """The one part of a list of attributes."""
    lists = {("attfind-greedy", target): attributes}
    (part,) = film(subject, toy_images(), toy_images(first), lists, **options)
    return part


def test_the_unedited_step_is_the_reconstruction_in_every_row(frames) -> None:
    for part in frames.parts:
        for sweep in part.sweeps:
            n = torch.arange(len(sweep.own))
            assert torch.equal(sweep.frames.images[n, sweep.own], part.together.images[:, 0])
            assert torch.equal(sweep.frames.probability[n, sweep.own], part.together.probability[:, 0])


def test_a_sweep_moves_one_coordinate_evenly_from_the_minimum_to_the_maximum(frames) -> None:
    part = next(part for part in frames.parts if (part.method, part.target) == ("attfind-greedy", 1))
    (styles, indices), sweep, j = shown(1), part.sweeps[0], 1
    low, high = toy_styles()[:, j].min().item(), toy_styles()[:, j].max().item()
    for n in range(IMAGES):
        even = np.delete(sweep.values[n].numpy(), int(sweep.own[n]))
        np.testing.assert_allclose(even, np.linspace(low, high, STEPS), rtol=1e-6)
        assert sweep.values[n, sweep.own[n]] == styles[n, j]
        edited = styles[n].repeat(STEPS + 1, 1)
        edited[:, j] = sweep.values[n]
        images = SUBJECT.render(edited, [indices[n]] * (STEPS + 1))
        assert torch.equal(sweep.frames.images[n], to_uint8(images))
        p = SUBJECT.logits(images).double().softmax(dim=1)
        assert torch.equal(sweep.frames.probability[n], p[:, 1])
        odds = torch.log(p[:, 1] / (p[:, 0] + p[:, 2]))
        torch.testing.assert_close(sweep.frames.log_odds[n], odds)
        assert torch.equal(sweep.frames.top[n], p.argmax(dim=1))


def test_all_attributes_count_together_but_only_the_first_are_swept() -> None:
    attributes = [toy_attribute(j, 1, 1.0) for j in (1, 3, 0)]
    part = only(1, attributes, most=1)
    assert len(part.sweeps) == 1 and part.together.images.shape[1] == 4


def test_an_image_keeps_its_noise_in_every_frame() -> None:
    part = only(1, [toy_attribute(1, 1, 2.0)], first=40)
    corners = part.sweeps[0].frames.images[:, :, 0, 0, 0]
    expected = [round(255 * (index + 40) / 100) for index in shown(1)[1]]
    assert (corners == corners[:, :1]).all()
    assert torch.allclose(corners[:, 0].float(), torch.tensor(expected).float(), atol=1)  # a gray level


def test_a_counterfactual_edits_the_first_k_attributes_by_the_shift() -> None:
    part = only(1, [toy_attribute(1, 1, 2.0), toy_attribute(3, -1, 0.1)], shift=0.75)
    edited, indices = shown(1)
    edited[:, 1] += 0.75 * (toy_styles()[:, 1].max() - edited[:, 1])
    assert torch.equal(part.together.images[:, 1], to_uint8(SUBJECT.render(edited, indices)))
    edited[:, 3] += 0.75 * (toy_styles()[:, 3].min() - edited[:, 3])
    assert torch.equal(part.together.images[:, 2], to_uint8(SUBJECT.render(edited, indices)))


def test_frames_do_not_depend_on_the_batch() -> None:
    one, many = ToySubject(), ToySubject()
    one.batch = 1
    first, second = (only(1, [toy_attribute(1, 1, 2.0)], subject=each) for each in (one, many))
    assert torch.equal(first.together.images, second.together.images)
    assert torch.equal(first.sweeps[0].frames.top, second.sweeps[0].frames.top)


def test_images_of_other_classes_are_shown_in_turn() -> None:
    predicted = torch.tensor([2, 0, 1, 1, 1, 0, 2, 1])
    assert choose_images(predicted, 2, 5).tolist() == [1, 2, 5, 3, 4]
    assert choose_images(predicted, 1, 3).tolist() == [1, 0, 5]
    with pytest.raises(UserError, match="all 3 images to class 4; explain more images"):
        choose_images(torch.tensor([4, 4, 4]), 4)


def test_large_images_are_classified_first_and_then_reduced() -> None:
    class Large(ToySubject):
        def render(self, styles: torch.Tensor, indices: list[int]) -> torch.Tensor:
            return super().render(styles, indices).repeat_interleave(16, 2).repeat_interleave(16, 3)

        def logits(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[-1] == 512
            return super().logits(images[:, :, ::16, ::16])

    large = only(1, [toy_attribute(1, 1, 2.0)], subject=Large())
    small = only(1, [toy_attribute(1, 1, 2.0)])
    assert large.together.images.shape[-1] == LARGEST
    assert torch.equal(large.together.probability, small.together.probability)


# Pictures


def test_tiles_of_the_sheet_are_the_frames_and_bars_are_the_probabilities(frames, tmp_path) -> None:
    part = next(part for part in frames.parts if (part.method, part.target) == ("attfind-greedy", 1))
    sweeps = []
    for sweep in part.sweeps:  # the class decides on the colour, whatever the probability
        top = torch.arange(sweep.frames.top.numel()).view_as(sweep.frames.top) % 2
        sweeps.append(dataclasses.replace(sweep, frames=dataclasses.replace(sweep.frames, top=top)))
    part = dataclasses.replace(part, sweeps=tuple(sweeps))
    image, size = typical_image(part), tile_size(part.together)
    with Image.open(draw_sweeps(frames, part, tmp_path / "sweeps.png")) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    row = size + BAR + LETTERS + 3 * GAP
    for i, sweep in enumerate(part.sweeps):
        for t in range(STEPS + 1):
            top, left = 4 * LETTERS + i * row, NAMES + t * (size + GAP)
            expected = fit(to_picture(sweep.frames.images[image, t]), size)
            np.testing.assert_array_equal(sheet[top : top + size, left : left + size], np.asarray(expected))
            bar = sheet[top + size + GAP, left : left + size]
            flipped = int(sweep.frames.top[image, t]) == 1
            color = tuple(bytes.fromhex((TARGET if flipped else OTHER)[1:]))
            assert (bar == color).all(axis=1).sum() == round(float(sweep.frames.probability[image, t]) * size)
            framed = tuple(sheet[top - 2, left]) != (255, 255, 255)
            assert framed == (t == sweep.own[image])


def test_the_typical_image_is_the_median_of_the_change() -> None:
    part = toy_frames().parts[1]
    change = (part.together.log_odds[:, -1] - part.together.log_odds[:, 0]).tolist()
    assert sorted(change).index(change[typical_image(part)]) == (len(change) - 1) // 2


def test_a_change_is_red_where_it_is_brighter_and_blue_where_it_is_darker() -> None:
    image = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    picture = np.asarray(highlight(image, torch.tensor([[1.0, -1.0], [0.0, 0.5]])))
    red, blue, none, half = picture.reshape(4, 3).astype(int)
    assert red[0] > red[2] + 100 and blue[2] > blue[0] + 100
    assert none[0] == none[1] == none[2] == round(255 - 155 * 0.35)
    assert none[0] > half[1] > red[1]


def test_the_animation_runs_forth_and_back_and_holds_its_ends(frames, tmp_path) -> None:
    part = frames.parts[0]
    with Image.open(animate(frames, part, tmp_path / "a.webp")) as film_:
        shown, times = [], []
        for t in range(film_.n_frames):
            film_.seek(t)
            shown.append(np.asarray(film_.convert("RGB")))
            times.append(film_.info["duration"])
        assert film_.info["loop"] == 0
    assert len(shown) == 2 * STEPS
    assert times == [LAST_MS, *[FRAME_MS] * (STEPS - 1), LAST_MS, *[FRAME_MS] * (STEPS - 1)]
    for t in range(1, STEPS):
        np.testing.assert_array_equal(shown[t], shown[-t])
    size, top = tile_size(part.together), 2 * LETTERS
    last = fit(to_picture(part.sweeps[0].frames.images[0, -1]), size)
    np.testing.assert_array_equal(shown[STEPS][top : top + size, GAP : GAP + size], np.asarray(last))


def test_a_sprite_has_a_row_for_each_image_and_a_column_for_each_step(frames) -> None:
    images = frames.parts[0].sweeps[0].frames.images
    array = np.asarray(sprite(images))
    np.testing.assert_array_equal(array[32:64, 64:96, 0], images[1, 2, 0].numpy())


def test_the_folder_has_the_page_and_three_pictures_for_each_method_and_class(frames, tmp_path) -> None:
    written = write_pictures(tmp_path, frames)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(written)
    assert len(written) == 1 + 3 * len(frames.parts)
    assert {path.suffix for path in written} == {".html", ".png", ".webp"}
