"""Order of samples, random crops against a naive loop, normalisation."""

from __future__ import annotations

import pytest
import torch

from engine.data import pipeline
from engine.data.dataset import SegmentationData
from engine.data.pipeline import epoch_indices, normalise, sample_crops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(sizes: list[tuple[int, int]]) -> SegmentationData:
    """Images whose red is their number, green their row + 1, blue their column + 1; labels = (row + column) % 5."""
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    labels = torch.full((len(sizes), height, width), 255, dtype=torch.uint8)
    for i, (h, w) in enumerate(sizes):
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        images[i, :, :h, :w] = torch.stack([torch.full((h, w), i + 1), rows + 1, columns + 1]).to(torch.uint8)
        labels[i, :h, :w] = ((rows + columns) % 5).to(torch.uint8)
    names = [str(i) for i in range(len(sizes))]
    return SegmentationData(images, labels, torch.tensor(sizes), names, ("a", "b", "c", "d", "e"))


def check_crop(image: torch.Tensor, labels: torch.Tensor, number: int, size: tuple[int, int]) -> tuple[int, int, bool]:
    """Verify one crop pixel by pixel; return its top, left in the image and whether it is mirrored."""
    crop = len(labels)
    inside = (image[0] > 0).nonzero()
    y, x = inside[0].tolist()
    step = int(image[2, y, x + 1]) - int(image[2, y, x])
    top = int(image[1, y, x]) - 1 - y
    first = int(image[2, y, x]) - 1 - step * x
    for row in range(crop):
        for column in range(crop):
            r, c = top + row, first + step * column
            there = 0 <= r < size[0] and 0 <= c < size[1]
            expected = [number + 1, r + 1, c + 1] if there else [0, 0, 0]
            assert image[:, row, column].tolist() == expected
            assert int(labels[row, column]) == ((r + c) % 5 if there else 255)
    return top, (first if step == 1 else first - crop + 1), step == -1


SIZES = [(9, 12), (4, 12), (9, 5), (3, 3), (7, 7)]


def test_sample_crops_any_size_equal_naive_reading() -> None:
    data = numbered(SIZES)
    indices = torch.arange(5).repeat(12)
    images, labels = sample_crops(data, indices, 7, generator())
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    found = [
        check_crop(image, label, int(i), SIZES[int(i)]) for image, label, i in zip(images, labels, indices, strict=True)
    ]
    for number, (height, width) in enumerate(SIZES):
        tops, lefts, flips = zip(*found[number::5], strict=True)
        assert all(min(0, height - 7) <= top <= max(0, height - 7) for top in tops)
        assert all(min(0, width - 7) <= left <= max(0, width - 7) for left in lefts)
        assert set(flips) == {True, False}


def test_sample_crops_windows_that_are_copied_equal_those_that_are_gathered() -> None:
    """The way of a CPU and the way of a GPU."""
    data, crop = numbered(SIZES), 7
    indices = torch.arange(5).repeat(20)
    offsets = pipeline._offsets(data.sizes[indices], crop, torch.rand(100, 2, generator=generator()).double())
    flip = torch.arange(100) % 3 == 0
    steps = torch.arange(crop)
    rows, columns = offsets[:, :1] + steps, offsets[:, 1:] + torch.where(flip[:, None], crop - 1 - steps, steps)
    inside = pipeline._inside(rows, columns, data.sizes[indices])
    gathered = pipeline._gather(data, indices, rows, columns, inside)
    copied = pipeline._copy_windows(data, indices, offsets, flip, crop)
    assert all(torch.equal(one, other) for one, other in zip(gathered, copied, strict=True))


def test_sample_crops_labels_are_of_the_type_asked_for() -> None:
    data = numbered(SIZES)
    wide = sample_crops(data, torch.arange(5), 7, generator())[1]
    narrow = sample_crops(data, torch.arange(5), 7, generator(), label_dtype=torch.uint8)[1]
    assert narrow.dtype == torch.uint8 and torch.equal(narrow.long(), wide)


def test_sample_crops_offsets_are_uniform_over_their_range() -> None:
    data = numbered([(6, 4)])
    images, _ = sample_crops(data, torch.zeros(6000, dtype=torch.int64), 4, generator(), mirror=False)
    tops = torch.bincount(images[:, 1, 0, 0].long() - 1, minlength=3).double()
    # chi-square, 2 degrees of freedom, p = 1e-6 at 27.6
    assert len(tops) == 3 and float(((tops - 2000) ** 2 / 2000).sum()) < 27.6


def test_sample_crops_smaller_image_is_placed_everywhere() -> None:
    images, _ = sample_crops(numbered([(2, 2)]), torch.zeros(400, dtype=torch.int64), 4, generator())
    places = {tuple(image[0].nonzero()[0].tolist()) for image in images}
    assert places == {(y, x) for y in range(3) for x in range(3)}


@pytest.mark.parametrize("way", ["copied", "gathered", "resized"])
def test_sample_crops_outside_is_what_was_asked_for(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, indices = numbered(SIZES), torch.arange(5).repeat(4)
    monkeypatch.setattr(pipeline.host, "on_host", lambda _: way == "copied")
    scale = (0.5, 0.9) if way == "resized" else (1.0, 1.0)
    black, labels = sample_crops(data, indices, 9, generator(), scale_jitter=scale)
    images, same = sample_crops(data, indices, 9, generator(), scale_jitter=scale, fill=(30, 20, 10))
    outside = labels == 255
    assert torch.equal(labels, same) and outside.any() and not outside.all()
    expected = torch.where(outside[:, None], torch.tensor([30, 20, 10], dtype=torch.uint8)[:, None, None], black)
    assert torch.equal(images, expected)


def test_sample_crops_mirror_off_never_mirrors_and_keeps_offsets() -> None:
    data = numbered([(9, 12)])
    indices = torch.zeros(50, dtype=torch.int64)
    plain, _ = sample_crops(data, indices, 7, generator(3), mirror=False)
    mirrored, _ = sample_crops(data, indices, 7, generator(3))
    same = [torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(plain, mirrored, strict=True))
    assert 10 < sum(same) < 40


def test_sample_crops_same_generator_state_gives_same_crops() -> None:
    data, indices = numbered(SIZES), torch.tensor([4, 0, 0, 2])
    first, again, other = (sample_crops(data, indices, 5, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (7, 7), (5, 12), (1, 3)])
def test_epoch_indices_every_epoch_is_a_permutation(n: int, batch: int) -> None:
    steps = -(-5 * n // batch)
    order = torch.cat([epoch_indices(3, step, batch, n) for step in range(steps)])
    assert len(order) == steps * batch
    epochs = [order[e * n : (e + 1) * n].tolist() for e in range(5)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n >= 7:
        assert len({tuple(epoch) for epoch in epochs}) == 5


def test_epoch_indices_depend_on_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    first = epoch_indices(0, 17, 8, 50)
    torch.manual_seed(2)
    assert torch.equal(first, epoch_indices(0, 17, 8, 50))
    assert not torch.equal(first, epoch_indices(1, 17, 8, 50))


@pytest.mark.parametrize(("step", "batch", "n"), [(0, 4, 0), (-1, 4, 5), (0, 0, 5)])
def test_epoch_indices_impossible_arguments_are_refused(step: int, batch: int, n: int) -> None:
    with pytest.raises(ValueError, match="epoch_indices"):
        epoch_indices(0, step, batch, n)


def test_normalise_rgb_uses_imagenet_statistics() -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalise(images, "rgb").flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_normalise_gray_is_mean_minus_constant() -> None:
    images = torch.tensor([10, 20, 60], dtype=torch.uint8).view(1, 3, 1, 1)
    values = normalise(images, "gray")
    assert values.shape == (1, 1, 1, 1) and values.dtype == torch.float32
    assert float(values) == pytest.approx(30 / 255 - 0.4488, abs=1e-6)


def test_proxy_view_appends_unlabelled_images_and_hides_labels() -> None:
    data = numbered([(4, 6), (3, 6)])
    extra = torch.full((3, 3, 4, 6), 9, dtype=torch.uint8)
    view = SegmentationData(data.images, data.labels, data.sizes, data.names, data.classes, extra).proxy_view()
    assert len(view) == 5 and view.sizes.tolist() == [[4, 6], [3, 6], [4, 6], [4, 6], [4, 6]]
    assert bool((view.labels == 255).all())
    assert int(view.images[4].unique()) == 9
    crops, _ = sample_crops(view, torch.arange(5), 4, generator())
    assert crops.shape == (5, 3, 4, 4)
