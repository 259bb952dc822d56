# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The few calls of the CUDA runtime that are needed, through the cuda-python package.

Reviewed, never run: the authors have no GPU.  Pointers, streams and graphs are plain integers or
what the bindings return; callers do not look into them.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import ctypes
from importlib import import_module
from typing import Any

import numpy as np


class Cuda:
    """
    One stream of the highest priority on the first GPU, memory, copies and captured graphs.

    Raises RuntimeError when cuda-python is missing or a call fails.
    """

    def __init__(self) -> None:
        try:
            self._api = import_module('cuda.bindings.runtime')
        except ImportError:
            raise RuntimeError('the TensorRT backend needs cuda-python; pip install '
                               'cuda-python') from None
        _, greatest = self._check(self._api.cudaDeviceGetStreamPriorityRange())
        # Planning is what the robot waits for; a viewer or a recorder on the same GPU is not.
        self.stream = int(self._check(self._api.cudaStreamCreateWithPriority(
            self._api.cudaStreamNonBlocking, greatest)))

    def _check(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]) != 0:
            raise RuntimeError(f'CUDA: {answer[0]!r}')
        return answer[1] if len(answer) == 2 else answer[1:]

    def allocate(self, size: int) -> int:
        """Return ``size`` bytes of device memory; zeroing it is queued."""
        pointer = int(self._check(self._api.cudaMalloc(size)))
        try:
            # On this stream: a non-blocking one does not wait for the default stream.
            self._check(self._api.cudaMemsetAsync(pointer, 0, size, self.stream))
        except RuntimeError:
            with contextlib.suppress(RuntimeError):
                self.free(pointer)
            raise
        return pointer

    def free(self, pointer: int) -> None:
        """Free device memory."""
        self._check(self._api.cudaFree(pointer))

    def pinned(self, size: int) -> tuple[int, np.ndarray]:
        """Return page-locked host memory: its address, and its bytes as an array."""
        pointer = int(self._check(self._api.cudaHostAlloc(size, self._api.cudaHostAllocDefault)))
        return pointer, np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), np.uint8)

    def free_pinned(self, pointer: int) -> None:
        """Free page-locked memory; arrays over it must not be used any more."""
        self._check(self._api.cudaFreeHost(pointer))

    def upload(self, device: int, host: int, size: int) -> None:
        """Queue a copy from pinned memory to the device."""
        self._check(self._api.cudaMemcpyAsync(
            device, host, size, self._api.cudaMemcpyKind.cudaMemcpyHostToDevice, self.stream))

    def download(self, host: int, device: int, size: int) -> None:
        """Queue a copy from the device to pinned memory."""
        self._check(self._api.cudaMemcpyAsync(
            host, device, size, self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost, self.stream))

    def copy_rows(self, target: int, pitch: int, source: int, width: int, rows: int) -> None:
        """Queue ``rows`` copies of ``width`` bytes on the device, ``pitch`` apart in target."""
        self._check(self._api.cudaMemcpy2DAsync(
            target, pitch, source, width, width, rows,
            self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice, self.stream))

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what ``work`` queues, without running it, as a graph to launch."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(self._api.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        finally:
            graph = self._check(self._api.cudaStreamEndCapture(self.stream))
        try:
            return self._check(self._api.cudaGraphInstantiate(graph, 0))
        finally:
            self._check(self._api.cudaGraphDestroy(graph))

    def launch(self, captured: Any) -> None:
        """Queue a captured graph."""
        self._check(self._api.cudaGraphLaunch(captured, self.stream))

    def free_graph(self, captured: Any) -> None:
        """Free a captured graph."""
        self._check(self._api.cudaGraphExecDestroy(captured))

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        self._check(self._api.cudaStreamSynchronize(self.stream))

    def close(self) -> None:
        """Destroy the stream; nothing may be queued any more."""
        stream, self.stream = self.stream, 0
        if stream:
            self._check(self._api.cudaStreamDestroy(stream))
