"""The machine's devices behind one interface: NVIDIA GPUs by NVML, a recorded driver for trials, and the host."""

from mmtui.devices.driver import gpu_snapshot
from mmtui.devices.host import HostSnapshot, host_snapshot

__all__ = ["HostSnapshot", "gpu_snapshot", "host_snapshot"]
