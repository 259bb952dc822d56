# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What GPU is there?  Asked of the driver in a process of its own.

Loading a CUDA library where the driver is missing or broken can crash the process that does it
(TensorRT's runtime does), so nothing of CUDA is touched before this probe has answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import json
import subprocess
import sys

from egomotion_ros.runtimes.base import AbsentError

#: Time (s) that a driver has to answer; it may have to wake a GPU up.
PATIENCE = 60.0
#: Exit status of the probe where there is no driver or device, and CUDA's word for the latter.
_ABSENT, _NO_DEVICE = 3, 100
_PROBE = f"""
import ctypes, json, re, sys
def absent(reason):
    print(reason, file=sys.stderr)
    sys.exit({_ABSENT})
try:
    cuda = ctypes.CDLL('libcuda.so.1')
except OSError as error:
    absent(error)
def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code == {_NO_DEVICE}:
        absent('no device')
    if code:
        raise SystemExit(f'{{name}} answered {{code}}')
def number(name, *args):
    value = ctypes.c_int()
    call(name, ctypes.byref(value), *args)
    return value.value
call('cuInit', 0)
if not number('cuDeviceGetCount'):
    absent('no device')
device = number('cuDeviceGet', 0)
name = ctypes.create_string_buffer(256)
call('cuDeviceGetName', name, 256, device)
driver = str(number('cuDriverGetVersion'))
try:
    with open('/proc/driver/nvidia/version') as said:
        release = re.search(r'Kernel Module.*?\\s([0-9]+(?:[.][0-9]+)+)\\s', said.read())
    driver = release.group(1) if release else driver
except OSError:
    pass
context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
call('cuDevicePrimaryCtxRetain', ctypes.byref(context), device)
call('cuCtxSetCurrent', context)
call('cuMemGetInfo_v2', ctypes.byref(free), ctypes.byref(total))
print(json.dumps({{'name': name.value.decode(), 'driver': driver, 'free': free.value,
                  'major': number('cuDeviceGetAttribute', 75, device),
                  'minor': number('cuDeviceGetAttribute', 76, device)}}))
"""


@dataclass(frozen=True)
class Gpu:
    """
    ``name``, compute capability ``sm`` (89 = 8.9), release of the ``driver``.

    Where the driver does not tell its release, the CUDA version it serves (13000 = 13.0).
    ``free`` bytes of its memory when it was asked, 0 where that is not known.
    """

    name: str
    sm: int
    driver: str
    free: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        """All that a verdict depends on."""
        return f'{self.name} {self.sm} {self.driver}'


#: Stands for the missing GPU where an engine is only built, not run.
NO_GPU = Gpu('none', 0, '')


def probe_gpu() -> Gpu:
    """
    Ask the driver for the first GPU, in a process of its own: a broken driver can crash.

    Raises AbsentError when there is no driver or no device, RuntimeError with the reason when
    there is one that does not answer.
    """
    try:
        done = subprocess.run([sys.executable, '-c', _PROBE], capture_output=True, text=True,
                              errors='replace', timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise RuntimeError('the NVIDIA driver does not answer') from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        kind = AbsentError if done.returncode == _ABSENT else RuntimeError
        raise kind(f'no usable NVIDIA GPU: {lines[-1]}')
    try:
        found = json.loads(done.stdout)
        return Gpu(str(found['name']), 10 * int(found['major']) + int(found['minor']),
                   str(found['driver']), int(found['free']))
    except (ValueError, KeyError, TypeError):
        raise RuntimeError('no usable NVIDIA GPU: the driver was not understood, it said '
                           f'{done.stdout.strip()[-200:]!r}') from None
