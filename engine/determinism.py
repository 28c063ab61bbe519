"""Randomness as a pure function of (seed, purpose, rank, step): nothing has to be saved to resume exactly."""

from __future__ import annotations

import hashlib
import os

import torch


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any parts; equal parts give equal seeds, other parts unrelated ones."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(
    seed: int, purpose: str, *, rank: int = 0, step: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator of its own for one purpose at one step of one rank."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, rank, step))


def seed_global(seed: int, purpose: str, *, rank: int = 0, step: int = 0) -> None:
    """Seed torch's global generators, for layers that take none of their own (dropout)."""
    torch.manual_seed(derive_seed(seed, purpose, rank, step))


def configure(threads: int, deterministic: bool) -> int:
    """Set the number of CPU threads (0 = all cores this process may use) and the kernels torch may choose from.

    The number of threads changes the order of sums, so a resumed run must use the same one; it is returned.
    """
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    if deterministic:
        # cuBLAS reads this when its first handle is made; without it deterministic mode raises on CUDA.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        # filling fresh memory with NaN finds bugs but costs a pass over every new tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # As torch.use_deterministic_algorithms, which would also load torch._inductor: 1.9 s for what is not compiled here.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    return count
