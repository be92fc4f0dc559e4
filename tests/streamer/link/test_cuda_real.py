"""What only a real GPU can show; the link's own tests run on it, too (`-m gpu`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamer.errors import DeviceError
from streamer.gpu import probe
from streamer.gpu.device import GRANULE, Device
from streamer.header import Header
from streamer.lease import Lease
from streamer.link.cuda import CudaSlab

pytestmark = pytest.mark.gpu


def frame_in(slab: CudaSlab) -> Any:
    import links

    from streamer.frame import Frame

    header: Header = links.header(0, width=64, height=48)
    return Frame(header, Lease(slab.slot(0), device=slab.device))


def test_a_second_process_opens_its_memory(real_gpu: Device) -> None:
    assert real_gpu.uuid.startswith(("GPU-", "MIG-"))
    assert probe.ask(real_gpu) == ""


def test_views_of_cupy_and_torch_are_one_memory_on_one_stream(real_gpu: Device) -> None:
    import cupy
    import torch

    slab = CudaSlab(real_gpu, 2, 64 * 48 * 3)
    with frame_in(slab) as frame:
        array = frame.cupy()
        tensor = frame.torch()
        assert array.data.ptr == tensor.data_ptr()
        stream = real_gpu.stream()
        assert cupy.cuda.get_current_stream().ptr == stream
        assert torch.cuda.current_stream().cuda_stream == stream
        tensor.fill_(7)
        array += 1
        assert (frame.numpy() == 8).all()
        frame.write(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3))
        frame.write(frame.torch() + 1)
        assert frame.numpy()[0, 0].tolist() == [1, 2, 3]
        with pytest.raises(ValueError, match="shape"):
            frame.write(tensor[:1])
        del array, tensor
    slab.close()


def test_memory_comes_back_and_too_much_is_refused(real_gpu: Device) -> None:
    before = real_gpu.memory()[0]
    slab = CudaSlab(real_gpu, 8, 16 * GRANULE)
    assert before - real_gpu.memory()[0] >= 8 * 16 * GRANULE
    slab.close()
    # Some the driver keeps for itself, for the first events say.
    assert before - real_gpu.memory()[0] < 8 * GRANULE
    with pytest.raises(DeviceError) as caught:
        real_gpu.malloc(1 << 45)
    assert caught.value.out_of_memory
