"""Memory that lacks is told with what it was needed for, and with the keys that help there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from engine.errors import EngineError
from engine.watch import out_of_memory
from tests.unit.engine_run.conftest import Runner, tiny_recipe

Lacks = Callable[[Any, tuple[Any, ...]], bool]


class FullDevice(TorchFunctionMode):
    """A device on which some calls find no memory; all others are done."""

    def __init__(self, lacks: Lacks, error: BaseException | None = None) -> None:
        super().__init__()
        self.lacks, self.error = lacks, error or torch.OutOfMemoryError("CUDA out of memory (a test says so)")

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if self.lacks(func, args):
            raise self.error
        return func(*args, **(kwargs or {}))


def images_of(count: int) -> Lacks:
    """Pictures that are to be placed."""
    return lambda func, args: (
        func is torch.Tensor.to and args[0].dtype == torch.uint8 and args[0].ndim == 4 and len(args[0]) == count
    )


def parameters(func: Any, args: tuple[Any, ...]) -> bool:
    return func is torch.Tensor.to and isinstance(args[0], torch.nn.Parameter)


def memory_of_embeddings(func: Any, args: tuple[Any, ...]) -> bool:
    return func is torch.Tensor.to and args[0].ndim == 2 and len(args[0]) == 9 * 12


def learning(func: Any, _: tuple[Any, ...]) -> bool:
    return func is torch.conv2d and torch.is_grad_enabled()


def predicting(func: Any, args: tuple[Any, ...]) -> bool:
    return func is torch.conv2d and not torch.is_grad_enabled() and len(args[0]) > 1


BUDGET = "lower runtime.memory_budget_gib below their size"
CASES: dict[str, tuple[str, Lacks, list[str]]] = {
    # stage that trains, what finds no memory, what is said
    "images of a proxy task": ("proxy", images_of(5), ["placing the train images (", BUDGET]),
    "images to match": ("match", images_of(5), ["placing the train images (", BUDGET]),
    "images to segment": ("segment", images_of(5), ["placing the train images (", BUDGET]),
    "images to evaluate": ("segment", images_of(3), ["placing the val images (", BUDGET]),
    "network of the proxy task": ("proxy", parameters, ["placing the network of stage proxy", "lower model.width"]),
    "network to match": ("match", parameters, ["placing the network of stage match", "lower model.width"]),
    "network to segment": ("segment", parameters, ["placing the network of stage segment", "lower model.width"]),
    "remembered embeddings": ("match", memory_of_embeddings, ["remembered embeddings", "lower match.memory"]),
    "step of the proxy task": ("proxy", learning, ["a step of stage proxy", "lower proxy.batch_size or proxy.crop"]),
    "step that matches": ("match", learning, ["a step of stage match", "lower match.images, match.patches_per_image"]),
    "step that segments": ("segment", learning, ["a step of stage segment", "lower segment.batch_size"]),
    "evaluation on the way": ("segment", predicting, ["the evaluation", "lower evaluate.batch_size"]),
}


def one_stage(stage: str, **changes: Any) -> Any:
    others = dict.fromkeys({"proxy", "match", "segment"} - {stage})
    memory = {"match__memory": 9} if stage == "match" else {}
    return tiny_recipe(**{**others, **memory, **({} if stage == "segment" else {"evaluate": None}), **changes})


@pytest.mark.parametrize("what", CASES)
def test_lack_of_memory_is_told_by_where_it_was_met(runner: Runner, what: str) -> None:
    stage, lacks, said = CASES[what]
    with FullDevice(lacks), pytest.raises(EngineError, match="too little memory for ") as caught:
        runner.train(one_stage(stage))
    assert all(words in str(caught.value) for words in said), str(caught.value)
    others = {"match.images", "segment.batch_size", "evaluate.batch_size", "memory_budget_gib", "model.width"}
    assert [key for key in sorted(others) if key in str(caught.value)] == [
        key for key in sorted(others) if any(key in words for words in said)
    ]


def test_folder_of_a_proxy_task_is_told_apart_from_the_data_set(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / "pictures" / f"{number}.png")
    recipe = one_stage("proxy", proxy__images=str(tmp_path / "pictures"))
    with FullDevice(images_of(6)), pytest.raises(EngineError, match="for placing the images of the proxy task") as told:
        runner.train(recipe)
    assert BUDGET in str(told.value)


def test_evaluation_as_a_stage_is_told_like_one_on_the_way(runner: Runner) -> None:
    recipe = one_stage("segment", segment__eval_every=0)
    with FullDevice(predicting), pytest.raises(EngineError, match=r"for the evaluation: lower evaluate\.batch_size"):
        runner.train(recipe)


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError("no memory")]
)
@pytest.mark.parametrize("lacks", [images_of(5), learning])
def test_lack_of_the_hosts_own_memory_is_told_alike(runner: Runner, error: BaseException, lacks: Lacks) -> None:
    what = "a step of stage match" if lacks is learning else "placing the train images"
    with FullDevice(lacks, error), pytest.raises(EngineError, match=f"this machine has too little memory for {what}"):
        runner.train(one_stage("match"))


def test_budget_helps_only_with_a_place_on_the_disk(runner: Runner) -> None:
    with FullDevice(images_of(5)), pytest.raises(EngineError, match=r"and set runtime\.data_cache to a folder"):
        runner.train(one_stage("match", runtime__data_cache="none"))


def test_what_is_no_lack_of_memory_stays_what_it_is(runner: Runner) -> None:
    with FullDevice(images_of(5), RuntimeError("something else")), pytest.raises(RuntimeError, match="something else"):
        runner.train(one_stage("match"))


def test_hosts_memory_is_not_called_the_gpus() -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    advice = str(out_of_memory(error, tiny_recipe(), "segment", torch.device("cuda")))
    assert advice.startswith("this machine has too little memory") and "precision" not in advice
