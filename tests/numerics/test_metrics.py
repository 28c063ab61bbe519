"""IoU against counts of single pixels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch.multiprocessing.spawn import spawn

from engine.metrics import ConfusionMatrix
from tests.pretended_gpu import GPU, SIZE, PretendedGpu

K = 5
PIXELS = st.lists(st.tuples(st.integers(0, K - 1), st.sampled_from([0, 1, 2, 3, 4, 255])), max_size=60)


def counted(prediction: list[int], target: list[int]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(K)
    matrix.update(torch.tensor(prediction, dtype=torch.int64), torch.tensor(target, dtype=torch.int64))
    return matrix


def same(value: float, expected: float) -> bool:
    return math.isnan(value) if math.isnan(expected) else value == pytest.approx(expected, rel=1e-12)


@settings(max_examples=80, deadline=None)
@given(pixels=PIXELS)
def test_confusion_matrix_any_pixels_equals_naive_counts(pixels: list[tuple[int, int]]) -> None:
    matrix = counted([p for p, _ in pixels], [t for _, t in pixels])
    seen = [(p, t) for p, t in pixels if t != 255]
    expected, accuracies, weighted = list[float](), list[float](), 0.0
    for c in range(K):
        hits = sum(p == c and t == c for p, t in seen)
        union = sum(p == c or t == c for p, t in seen)
        truth = sum(t == c for _, t in seen)
        expected.append(hits / union if union else math.nan)
        assert same(float(matrix.iou()[c]), expected[c])
        accuracies += [hits / truth] if truth else []
        weighted += truth / len(seen) * expected[c] if truth else 0
        assert same(float(matrix.accuracy()[c]), hits / truth if truth else math.nan)
    present = [value for value in expected if not math.isnan(value)]
    assert same(matrix.mean_iou(), sum(present) / len(present) if present else math.nan)
    assert same(matrix.mean_accuracy(), sum(accuracies) / len(accuracies) if accuracies else math.nan)
    assert same(matrix.frequency_weighted_iou(), weighted if seen else math.nan)
    assert same(matrix.pixel_accuracy(), sum(p == t for p, t in seen) / len(seen) if seen else math.nan)
    for t in range(K):
        for p in range(K):
            assert int(matrix.matrix[t, p]) == seen.count((p, t))


BATCHES = st.lists(PIXELS, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(batches=BATCHES)
def test_pixels_on_a_gpu_are_counted_there_and_alike(batches: list[list[tuple[int, int]]]) -> None:
    here, there = ConfusionMatrix(K), ConfusionMatrix(K)
    for pixels in batches:
        prediction, target = torch.tensor(pixels, dtype=torch.int64).view(-1, 2).T
        here.update(prediction, target)
        with PretendedGpu() as gpu:
            prediction, target = prediction.to(GPU), target.to(torch.uint8).to(GPU)
            gpu.restart()
            there.update(prediction, target)
            assert gpu.count.kinds() == ({SIZE: 1} if pixels else {}), "none but that of bincount"
    assert torch.equal(there.matrix, here.matrix) and torch.equal(there.matrix, here.matrix)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 5, 1], [0, 0, 1], "predicted label is outside 0..4: 0..5"),
        ([0, -1, 1], [0, 0, 1], "predicted label"),
        ([0, 1, 1], [0, 5, 255], "target label is outside 0..4 and not 255"),
        ([0, 1, 1], [0, -1, 1], "target label"),
    ],
)
def test_wrong_labels_on_a_gpu_are_named_when_the_matrix_is_read(
    prediction: list[int], target: list[int], message: str
) -> None:
    matrix = counted([1, 1], [1, 2])
    with PretendedGpu():
        for guess, truth in (([4, 0], [4, 255]), (prediction, target), ([2], [2])):
            matrix.update(torch.tensor(guess, device=GPU), torch.tensor(truth, device=GPU))
        with pytest.raises(ValueError, match=message):
            matrix.mean_iou()
    assert torch.equal(matrix.matrix, counted([1, 1], [1, 2]).matrix), "what is doubtful is left out"


def test_confusion_matrix_absent_classes_are_left_out_and_invented_ones_count_as_zero() -> None:
    matrix = counted(prediction=[0, 0, 1, 3], target=[0, 0, 1, 1])
    assert matrix.iou()[[0, 1, 3]].tolist() == [1.0, 0.5, 0.0]
    assert matrix.iou()[[2, 4]].isnan().all()
    assert matrix.mean_iou() == pytest.approx(1.5 / 3)
    assert matrix.accuracy()[3].isnan()


def test_confusion_matrix_void_pixels_are_dropped_whatever_was_predicted() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[0, 200], [2, 1]]), torch.tensor([[0, 255], [255, 1]]))
    assert int(matrix.matrix.sum()) == 2
    assert matrix.mean_iou() == 1.0


def test_confusion_matrix_only_void_has_no_iou() -> None:
    matrix = counted([1, 2], [255, 255])
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.pixel_accuracy())
    assert math.isnan(matrix.mean_accuracy())
    assert math.isnan(matrix.frequency_weighted_iou())


def test_confusion_matrix_updates_add_up_to_one_of_everything() -> None:
    source = torch.Generator().manual_seed(0)
    prediction, target = torch.randint(0, K, (2, 6, 9, 7), generator=source)
    whole, parts = ConfusionMatrix(K), ConfusionMatrix(K)
    whole.update(prediction, target)
    for p, t in zip(prediction, target, strict=True):
        parts.update(p.to(torch.uint8), t.to(torch.uint8))
    assert torch.equal(whole.matrix, parts.matrix)
    assert whole.matrix.dtype == torch.int64


def test_confusion_matrix_merge_adds_and_keeps_counts_beyond_32_bits_exact() -> None:
    first, second = counted([0, 1], [0, 0]), ConfusionMatrix(K)
    second.matrix[0, 0] = 2**53 + 1
    assert int(first.merge(second).matrix[0, 0]) == 2**53 + 2
    assert int(first.matrix[0, 1]) == 1
    with pytest.raises(ValueError, match="3 classes into 5"):
        first.merge(ConfusionMatrix(3))


def test_confusion_matrix_other_ignore_index_is_honoured_for_bytes_too() -> None:
    matrix = ConfusionMatrix(200, ignore_index=-100)
    matrix.update(torch.tensor([156], dtype=torch.uint8), torch.tensor([156], dtype=torch.uint8))
    assert int(matrix.matrix[156, 156]) == 1
    matrix.update(torch.tensor([0]), torch.tensor([-100]))
    assert int(matrix.matrix.sum()) == 1


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 1], [0], "differ in shape"),
        ([5], [0], "predicted label is outside 0..4: 5..5"),
        ([-1], [0], "predicted label"),
        ([0], [5], "target label is outside 0..4 and not 255"),
        ([0], [-1], "target label"),
        ([0.3], [0], "class indices"),
    ],
)
def test_confusion_matrix_wrong_input_is_named_and_counts_nothing(
    prediction: list[float], target: list[int], message: str
) -> None:
    matrix = ConfusionMatrix(K)
    with pytest.raises(ValueError, match=message):
        matrix.update(torch.tensor(prediction), torch.tensor(target))
    assert not matrix.matrix.any()


def count_and_reduce(rank: int, meeting: str, results: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    matrix = counted([rank, 2], [rank, 3])
    torch.save(matrix.reduce().matrix, f"{results}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.processes
def test_confusion_matrix_reduce_sums_over_processes(tmp_path: Path) -> None:
    spawn(count_and_reduce, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    expected = counted([0, 2, 1, 2], [0, 3, 1, 3]).matrix
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)


def test_confusion_matrix_reduce_alone_changes_nothing() -> None:
    matrix = counted([0, 1], [0, 0])
    assert torch.equal(matrix.reduce().matrix, counted([0, 1], [0, 0]).matrix)
