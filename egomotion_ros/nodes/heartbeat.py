# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The thread that looks after an active node: quickly while there is something to do, else slowly.

Not a ROS timer: the watch over stale inputs must not queue behind other callbacks, must go on
while simulated time stands still, and cancelling a timer from another thread makes rclpy's
executor raise.
"""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
import traceback

#: Seconds between two looks while there is something to do, and between two reports.
TICK, REPORT = 0.05, 1.0


class Heartbeat:
    """Calls ``tick`` every TICK seconds while it answers True, ``report`` every REPORT."""

    def __init__(
        self,
        tick: Callable[[], bool],
        report: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._tick, self._report, self._log = tick, report, log
        self._news = threading.Condition()
        self._busy = self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._ending = self._busy = False
        self._thread = threading.Thread(target=self._run, name='heartbeat', daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """There is something to do: tick from now on."""
        with self._news:
            self._busy = True
            self._news.notify_all()

    def stop(self) -> None:
        """End; nothing is called any more when this returns, unless called from within."""
        with self._news:
            self._ending = True
            self._news.notify_all()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        reported = time.monotonic()
        while True:
            with self._news:
                rest = reported + REPORT - time.monotonic()
                self._news.wait_for(
                    lambda: self._ending or self._busy, max(min(rest, REPORT), 0.0)
                )
                if self._ending:
                    return
                # What becomes busy during the tick below is not lost.
                busy, self._busy = self._busy, False
            if busy and self._guard(self._tick) is not False:
                time.sleep(TICK)
                self.hurry()
            if time.monotonic() - reported >= REPORT:
                reported = time.monotonic()
                self._guard(self._report)

    def _guard(self, step: Callable):
        try:
            return step()
        except Exception:
            self._log(f'{step.__name__} failed:\n{traceback.format_exc()}')
            return None
