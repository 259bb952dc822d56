# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What GPU is there?  Asked of the driver in a process of its own.

Loading a CUDA library where the driver is missing or broken can crash the process that does it
(TensorRT's runtime does), so nothing of CUDA is touched before this probe has answered.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
import subprocess
import sys

_PROBE = """
import ctypes, json
cuda = ctypes.CDLL('libcuda.so.1')
def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        raise SystemExit(f'{name} answered {code}')
def number(name, *args):
    value = ctypes.c_int()
    call(name, ctypes.byref(value), *args)
    return value.value
call('cuInit', 0)
if not number('cuDeviceGetCount'):
    raise SystemExit('no device')
device = number('cuDeviceGet', 0)
name = ctypes.create_string_buffer(256)
call('cuDeviceGetName', name, 256, device)
print(json.dumps({'name': name.value.decode(), 'driver': number('cuDriverGetVersion'),
                  'major': number('cuDeviceGetAttribute', 75, device),
                  'minor': number('cuDeviceGetAttribute', 76, device)}))
"""


@dataclass(frozen=True)
class Gpu:
    """``name``, compute capability ``sm`` (89 = 8.9) and CUDA version of the ``driver``."""

    name: str
    sm: int
    driver: int


#: Stands for the missing GPU where an engine is only built, not run.
NO_GPU = Gpu('none', 0, 0)


def probe_gpu() -> Gpu:
    """
    Ask the driver for the first GPU, in a process of its own: a broken driver can crash.

    Raises RuntimeError with the reason when there is none.
    """
    try:
        done = subprocess.run([sys.executable, '-c', _PROBE], capture_output=True, text=True,
                              timeout=60)
    except subprocess.TimeoutExpired:
        raise RuntimeError('the NVIDIA driver does not answer') from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        raise RuntimeError(f'no usable NVIDIA GPU: {lines[-1]}')
    found = json.loads(done.stdout)
    return Gpu(found['name'], 10 * found['major'] + found['minor'], found['driver'])
