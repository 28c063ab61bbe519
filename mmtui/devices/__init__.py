"""The machine's devices behind one interface: NVIDIA GPUs by NVML, a recorded driver for trials, and the host."""

from mmtui.devices.driver import gpu_answer, gpu_snapshot
from mmtui.devices.host import HostSnapshot, host_snapshot
from mmtui.devices.protocol import GpuAnswer, GpuDriver, GpuState

__all__ = ["GpuAnswer", "GpuDriver", "GpuState", "HostSnapshot", "gpu_answer", "gpu_snapshot", "host_snapshot"]
