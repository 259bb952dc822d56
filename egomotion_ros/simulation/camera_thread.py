# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera that draws beside the clock: one thread owns the OpenGL context and the view."""

from __future__ import annotations

from collections.abc import Callable
import threading

import numpy as np

from egomotion_ros.simulation.world import View, World


class CameraThread:
    """
    Draws the newest requested configuration and hands the picture to ``deliver(image, stamp)``.

    As a real camera it is late by its exposure and never has a queue: a request that comes while
    another waits replaces it.  ``deliver`` runs in the camera's thread.  The constructor returns
    once the view exists, and raises RuntimeError where nothing can be drawn on this machine.
    """

    def __init__(self, world: World, deliver: Callable[[np.ndarray, int], None]) -> None:
        self._world, self._deliver = world, deliver
        self._wanted: tuple[np.ndarray, int] | None = None
        self._busy = False
        self._closed = False
        self._change = threading.Condition()
        self._problem: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name='head camera', daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise RuntimeError('cannot draw: no EGL or OSMesa that MuJoCo can use '
                               f'({self._problem})') from self._problem

    def request(self, qpos: np.ndarray, stamp: int) -> None:
        """Ask for the picture at ``qpos``, taken at ``stamp`` (ns)."""
        with self._change:
            self._wanted = (qpos, stamp)
            self._change.notify_all()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until every request is delivered; False where that took too long."""
        with self._change:
            return self._change.wait_for(lambda: self._wanted is None and not self._busy, seconds)

    def close(self) -> None:
        """End the thread and free its OpenGL context."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            view = View(self._world, self._world.camera.width, self._world.camera.height)
        except Exception as problem:  # noqa: BLE001 - whatever GL says, told in the constructor
            self._problem = problem
            return
        finally:
            self._ready.set()
        try:
            while True:
                with self._change:
                    self._busy = False
                    self._change.notify_all()
                    self._change.wait_for(lambda: self._wanted is not None or self._closed)
                    if self._closed:
                        return
                    (qpos, stamp), self._wanted, self._busy = self._wanted, None, True
                self._deliver(view.first_person(qpos), stamp)
        finally:
            view.close()
