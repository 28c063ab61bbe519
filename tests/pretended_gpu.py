"""A GPU that is not there: tensors stay in the CPU's memory, and the engine takes them for tensors of a GPU.

Within ``with PretendedGpu() as gpu:`` a tensor that was made on, or sent to, the device ``cuda`` says that it is there,
and so does what is computed from it, backward passes too. Numbers are those of the CPU. What PyTorch refuses with a GPU
is refused here: operands on two devices, ``.numpy()`` of a tensor on the device, a generator of the other device.
Streams and events are stand-ins; work on a stream of its own is told apart.

What would stall a GPU is noted as a ``Stall``: a value that the host asks for, an operation whose result has a size
that depends on values, a copy to or from memory that is not pinned. Operators that would launch work are counted.

Two modes of PyTorch share the work. The one of functions sees what Python asks for: the device of a tensor, a device as
argument. The one of operators sees what is done, whoever has asked: what is computed from tensors of the device is
there, too.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
ENGINE = str(Path(__file__).resolve().parents[1] / "engine")
VALUE, SIZE, FLAGS, TO_HOST, TO_DEVICE, SYNCHRONISE = KINDS = (
    "value",
    "size",
    "flags",
    "to host",
    "to device",
    "synchronise",
)
"""Of stalls: the host asks for a number; for the size of a result; reads or writes by a mask of flags, whose number it
has to know; waits for a copy from the device; for a copy from memory that is not pinned; for all that is queued."""
WAITING = {
    **dict.fromkeys(("_local_scalar_dense", "equal", "allclose", "is_nonzero", "_linalg_eigh", "_linalg_svd"), VALUE),
    **dict.fromkeys(("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"), SIZE),
    **dict.fromkeys(("bincount", "repeat_interleave"), SIZE),
}
"""Operators that make the host wait for a GPU, by name."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
NO_WORK = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view"}
NO_WORK |= {"_local_scalar_dense"}
"""Operators that launch nothing, beside those that make views."""


class WrongDeviceError(RuntimeError):
    """What PyTorch refuses where there is a GPU."""


@dataclass(frozen=True)
class Stall:
    """Something that the host waits for.

    Attributes:
        kind: one of ``KINDS``.
        operation: name of the function or operator.
        place: file and function of the engine that led to it, ``data/feed.py:_bring``; "" = not from the engine.
        beside: on a stream of its own: the host waits for what stands there, and the network's work goes on.
    """

    kind: str
    operation: str
    place: str = ""
    beside: bool = False


@dataclass
class Count:
    """What was seen.

    Attributes:
        sent: copies to the device from pinned memory, for which nobody waits.
        launched: operators on tensors of the device that launch work, by name and place.
    """

    stalls: list[Stall] = field(default_factory=list)
    sent: int = 0
    launched: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def operators(self) -> int:
        """How many operators launch work."""
        return self.launched.total()

    def kinds(self, *, beside: bool = False) -> dict[str, int]:
        """How many stalls of each kind there were, on streams of their own or on the main one."""
        return dict(Counter(stall.kind for stall in self.stalls if stall.beside == beside))


class PretendedGpu:
    """See the module. ``count`` is what was seen since the last ``restart``."""

    def __init__(self) -> None:
        self.count = Count()
        self._beside = 0
        self._moving = False
        self._stack: list[bool] = []  # of functions that Python has called: whether what they make is on the device
        self._filled = False
        self._modes = contextlib.ExitStack()

    def __enter__(self) -> PretendedGpu:
        for patch in self._stand_ins():
            self._modes.enter_context(patch)
        self._modes.enter_context(_Operators(self))
        self._modes.enter_context(_Functions(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._modes.close()

    def restart(self) -> Count:
        """What was counted so far; counting begins anew."""
        before, self.count = self.count, Count()
        return before

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""
        return ON_DEVICE.has(tensor)

    # ---- noting ----

    def stall(self, kind: str, operation: str) -> None:
        """Note one, with the engine's line that leads to it."""
        self.count.stalls.append(Stall(kind, operation, _place(), self._beside > 0))

    def _copied(self, source: Tensor, to_device: bool, non_blocking: bool, operation: str) -> None:
        if not to_device:
            self.stall(TO_HOST, operation)
        elif non_blocking and PINNED.has(source):
            self.count.sent += 1
        else:
            self.stall(TO_DEVICE, operation)

    # ---- what Python asks for ----

    def function(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of PyTorch."""
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        if args and isinstance(args[0], Tensor) and name in _METHODS:
            return _METHODS[name](self, args[0], args[1:], kwargs)
        asked = kwargs.get("device") is not None and _is_gpu(kwargs["device"])
        if asked:
            kwargs["device"] = HOST
        pinned = kwargs.pop("pin_memory", False)
        on_device = asked or any(self.holds(tensor) for tensor in _tensors((args, kwargs)))
        generator = kwargs.get("generator")
        if generator is not None and (generator.device.type == "cuda") != on_device:
            raise WrongDeviceError(
                f"{name}: a generator of {generator.device}, in {_place() or 'no file of the engine'}"
            )
        self._stack.append(on_device)
        self._filled = name == "__setitem__" and not isinstance(args[2], Tensor)
        try:
            result = func(*args, **kwargs)
        finally:
            self._stack.pop()
        if asked:
            if name in ("tensor", "as_tensor", "asarray"):  # values of the host
                self.stall(TO_DEVICE, name)
            for tensor in _tensors(result):
                ON_DEVICE.add(tensor)
        if pinned:
            PINNED.add(result)
        return result

    def _attribute(self, func: Any, args: tuple[Any, ...]) -> Any:
        where = func.__self__
        if where is torch.Tensor.device:
            return GPU if self.holds(args[0]) else HOST
        if where is torch.Tensor.is_cuda:
            return self.holds(args[0])
        return func(*args)

    def moved(self, tensor: Tensor, to_device: bool | None, non_blocking: bool, operation: str, **form: Any) -> Tensor:
        """``Tensor.to`` for any of its forms. ``to_device``: None = stay. ``form``: dtype, copy, memory_format."""
        here = self.holds(tensor)
        there = here if to_device is None else to_device
        form = {name: value for name, value in form.items() if value is not None}
        if here == there:
            return tensor.to(form.pop("dtype", tensor.dtype), **form) if form else tensor
        self._copied(tensor, there, non_blocking, operation)
        self._moving = True
        try:
            made = tensor.to(form.pop("dtype", tensor.dtype), **{**form, "copy": True})
        finally:
            self._moving = False
        (ON_DEVICE.add if there else ON_DEVICE.remove)(made)
        return made

    # ---- what is done ----

    def operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator."""
        name = str(func._schema.name).partition("::")[2]
        given = list(_tensors((args, kwargs)))
        here = [self.holds(tensor) for tensor in given]
        on_device = any(here) or (not given and bool(self._stack) and self._stack[-1])
        if any(here):
            self._look(name, args, kwargs, given, here)
        result = func(*args, **kwargs)
        if not on_device or self._moving:
            return result
        returns = func._schema.returns
        for part, value in zip(returns, result if len(returns) > 1 else [result], strict=False):
            for tensor in _tensors(value) if part.alias_info is None or not part.alias_info.is_write else ():
                ON_DEVICE.add(tensor)
        crosses = name == "copy_" and here[0] != here[1]
        if not (crosses or name in NO_WORK or _is_view(func, given, result)):
            self.count.launched[name, _place()] += 1
        return result

    def _look(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], here: list[bool]
    ) -> None:
        """Note what the host would wait for; refuse what cannot be."""
        if name in ("copy_", "_foreach_copy_"):
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            for target, source in [args[:2]] if name == "copy_" else zip(*args[:2], strict=True):
                there = self.holds(target)
                if there != self.holds(source) and not (self._filled and source.ndim == 0):
                    self._copied(source, there, non_blocking, name)
            return
        if name in INDEXING:
            self._look_at_indices(name, args)
        elif any(not there and tensor.ndim for tensor, there in zip(given, here, strict=True)):
            raise WrongDeviceError(
                f"{name}: tensors of the host and of the device, in {_place() or 'no file of the engine'}"
            )
        if name in WAITING and kwargs.get("output_size") is None:
            self.stall(WAITING[name], name)

    def _look_at_indices(self, name: str, args: tuple[Any, ...]) -> None:
        if not self.holds(args[0]):
            raise WrongDeviceError(f"{name}: indices of the device into a tensor of the host, in {_place()}")
        indices = [index for index in args[1] if index is not None]
        for index in indices:
            if not self.holds(index):
                self.stall(TO_DEVICE, name)
        # One value under a single mask is filled in, whatever their number.
        filled = len(args) > 2 and args[2].numel() == 1 and len(indices) == 1
        if not filled and any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.stall(FLAGS, name)

    # ---- stand-ins ----

    def _stand_ins(self) -> Iterator[contextlib.AbstractContextManager[Any]]:
        gpu = self

        class Generator(torch.Generator):
            """On the device if it was asked for; the numbers are the CPU's."""

            there: torch.device

            def __new__(cls, device: torch.device | str = "cpu") -> Generator:
                made: Generator = super().__new__(cls)
                made.there = GPU if _is_gpu(device) else HOST
                return made

            @property
            def device(self) -> torch.device:  # type: ignore[override]
                return self.there

        class Autocast(torch.autocast):
            def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
                super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        @contextlib.contextmanager
        def stream(found: object) -> Iterator[None]:
            beside = isinstance(found, _Stream) and not found.main
            gpu._beside += beside
            try:
                yield
            finally:
                gpu._beside -= beside

        yield mock.patch.object(torch, "Generator", Generator)
        yield mock.patch.object(torch, "autocast", Autocast)
        for name, stand_in in {
            "Stream": _Stream,
            "Event": _Stream,
            "stream": stream,
            "current_stream": lambda device=None: _Stream(main=True),
            "synchronize": lambda device=None: gpu.stall(SYNCHRONISE, "synchronize"),
            "get_device_name": lambda device=None: "pretended",
            "empty_cache": lambda: None,
        }.items():
            yield mock.patch.object(torch.cuda, name, stand_in)
        yield mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", _grouped)
        yield mock.patch.object(torch.Tensor, "record_stream", lambda tensor, stream: None)
        # Modes of PyTorch are of one thread.
        yield mock.patch("engine.data.feed.ThreadPoolExecutor", _AtOnce)


class _Functions(TorchFunctionMode):
    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.gpu.function(func, args, dict(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled():
            # Operators that are made of others come whole there, and would hide what those do.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        return self.gpu.operator(func, args, kwargs)


class _Marks:
    """A set of pieces of memory. One that was freed is not in it, whoever has its address then."""

    def __init__(self) -> None:
        self._known: dict[int, StorageWeakRef] = {}
        self._most = 10_000

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory is in the set."""
        found = self._known.get(_memory(tensor)._cdata)
        return found is not None and not found.expired()

    def add(self, tensor: Tensor) -> None:
        """Put in the tensor's memory."""
        memory = _memory(tensor)
        self._known[memory._cdata] = StorageWeakRef(memory)
        if len(self._known) > self._most:
            self._known = {place: found for place, found in self._known.items() if not found.expired()}
            self._most = 10_000 + 2 * len(self._known)

    def remove(self, tensor: Tensor) -> None:
        """Take out the tensor's memory."""
        self._known.pop(_memory(tensor)._cdata, None)


ON_DEVICE, PINNED = _Marks(), _Marks()
"""Of all pretended GPUs: what the engine has cached on the device of one is there on the next one's."""


def _memory(tensor: Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


class _Stream:
    """A stream or an event, which has nothing to wait for."""

    def __init__(self, *_: Any, main: bool = False) -> None:
        self.main = main

    def wait_stream(self, stream: _Stream) -> None:
        """Nothing is queued."""

    def wait_event(self, event: _Stream) -> None:
        """Nothing is queued."""

    def record(self, stream: _Stream | None = None) -> None:
        """Nothing is queued."""


class _AtOnce:
    """An executor without threads."""

    def __init__(self, **_: Any) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """The result is there already."""
        done: Future[Any] = Future()
        done.set_result(work(*args))
        return done


def _to(gpu: PretendedGpu, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    form: dict[str, Any] = {name: kwargs.get(name) for name in ("dtype", "memory_format")}
    flags = [arg for arg in args if isinstance(arg, bool)]
    named = dict(zip(("non_blocking", "copy"), flags, strict=False)) | kwargs
    there = _is_gpu(kwargs["device"]) if kwargs.get("device") is not None else None
    for arg in (*args, kwargs.get("other")):
        if isinstance(arg, Tensor):
            there, form["dtype"] = gpu.holds(arg), arg.dtype
        elif isinstance(arg, torch.dtype):
            form["dtype"] = arg
        elif isinstance(arg, torch.device | str | int) and not isinstance(arg, bool):
            there = _is_gpu(arg)
    form["copy"] = named.get("copy") or None
    return gpu.moved(tensor, there, bool(named.get("non_blocking")), "to", **form)


def _tolist(gpu: PretendedGpu, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if gpu.holds(tensor):
        gpu.stall(TO_HOST, "tolist")
    return tensor.tolist()


def _numpy(gpu: PretendedGpu, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if gpu.holds(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")
    return tensor.numpy(*args, **kwargs)


def _pin_memory(gpu: PretendedGpu, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    if gpu.holds(tensor):
        raise WrongDeviceError("only memory of the host can be pinned")
    made = tensor.clone()
    PINNED.add(made)
    return made


def _deepcopy(gpu: PretendedGpu, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    made: Tensor = tensor.__deepcopy__(*args, **kwargs)
    if gpu.holds(tensor):
        ON_DEVICE.add(made)  # PyTorch copies its memory without an operator
    return made


_group = torch._C._group_tensors_by_device_and_dtype


def _grouped(
    lists: list[list[Tensor | None]], with_indices: bool = False
) -> dict[tuple[torch.device, torch.dtype], Any]:
    """What optimisers and the clipping of gradients take at once; of one device."""
    there = any(tensor is not None and ON_DEVICE.has(tensor) for tensor in lists[0])
    groups = _group(lists, with_indices)
    return {(GPU if there else device, dtype): group for (device, dtype), group in groups.items()}


_METHODS: dict[str, Callable[[PretendedGpu, Tensor, tuple[Any, ...], dict[str, Any]], Any]] = {
    "to": _to,
    "cpu": lambda gpu, tensor, args, kwargs: gpu.moved(tensor, False, False, "cpu"),
    "cuda": lambda gpu, tensor, args, kwargs: gpu.moved(tensor, True, bool(kwargs.get("non_blocking")), "cuda"),
    "tolist": _tolist,
    "numpy": _numpy,
    "__array__": _numpy,
    "pin_memory": _pin_memory,
    "__deepcopy__": _deepcopy,
    "is_pinned": lambda gpu, tensor, args, kwargs: PINNED.has(tensor),
}


def _is_gpu(device: Any) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _is_view(func: Any, given: list[Tensor], result: Any) -> bool:
    """Whether an operator only looks at memory in another way; some do where they can, and copy where they cannot."""
    if not any(part.alias_info is not None and not part.alias_info.is_write for part in func._schema.returns):
        return False
    before = {_memory(tensor)._cdata for tensor in given}
    return all(_memory(tensor)._cdata in before for tensor in _tensors(result))


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)


def _place() -> str:
    """File and function of the engine that is being run, the innermost."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(ENGINE):
            return f"{frame.f_code.co_filename[len(ENGINE) + 1 :]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""
