# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive the demo, and whose last words are shown when they fail."""

from __future__ import annotations

import ctypes
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time


class DemoError(RuntimeError):
    """What went wrong, with the last lines of the process it went wrong in."""


class Children:
    """
    Nodes as processes of their own; a context manager that stops all of them on the way out.

    ``folder`` takes one log file a process; ``environment`` is theirs.
    """

    #: Signals on the way out and the seconds each gets.
    FAREWELL = ((signal.SIGINT, 6.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, 'PYTHONFAULTHANDLER': '1'}
        self._running: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def start(self, name: str, module: str, arguments: list[str]) -> None:
        """Start ``python -m module arguments``; its output goes to ``<folder>/<name>.log``."""
        command = [sys.executable, '-m', module, *arguments]
        with open(self.log(name), 'wb') as log:
            # Its own session: Ctrl-C reaches the demo alone, which then stops them in order.
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=self._environment, start_new_session=True, preexec_fn=_end_with_parent)

    def pid(self, name: str) -> int:
        """Return the process id of ``name``."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        """Return the file that takes the output of ``name``."""
        return self._folder / f'{name}.log'

    def check(self) -> None:
        """Raise DemoError where a process has ended that should run."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoError(f'{name} ended with code {process.returncode}\n'
                                f'{self.last_words(name)}')

    def last_words(self, name: str, lines: int = 15) -> str:
        """Return the end of a process's log, indented."""
        text = self.log(name).read_text(errors='replace').splitlines()[-lines:]
        return '\n'.join(f'    {name}| {line}' for line in text) or f'    {name}| (no output)'

    def every_last_word(self) -> str:
        """Return the end of every log."""
        return '\n'.join(self.last_words(name, 8) for name in self._running)

    def dump(self) -> None:
        """End all processes; each writes what its threads were doing to its log."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)
        for process in self._running.values():
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                continue

    def stop(self) -> None:
        """End all processes: ask, insist, force; an impatient second Ctrl-C changes nothing."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            self._farewell()
        finally:
            if main:
                signal.signal(signal.SIGINT, before)

    def _farewell(self) -> None:
        for number, seconds in self.FAREWELL:
            alive = [process for process in self._running.values() if process.poll() is None]
            for process in alive:
                process.send_signal(number)
            deadline = time.monotonic() + seconds
            for process in alive:
                try:
                    process.wait(max(deadline - time.monotonic(), 0.0))
                except subprocess.TimeoutExpired:
                    continue
        self._running.clear()


def _end_with_parent() -> None:
    """Let the kernel end this child should the demo be killed (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform.startswith('linux'):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
