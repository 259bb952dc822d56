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
    another waits replaces it.  ``deliver`` runs in the camera's thread; what it raises ends the
    camera, and the next :meth:`request` says so, unless the camera is being closed: then nobody
    wants the picture, and where it should go may be gone.  The constructor returns once the view
    exists, and raises RuntimeError where nothing can be drawn on this machine.
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
        """
        Ask for the picture at ``qpos``, taken at ``stamp`` (ns); nothing where it is closed.

        Raises RuntimeError where an earlier picture could not be drawn or delivered.
        """
        with self._change:
            if self._problem is not None:
                raise RuntimeError(f'the camera failed: {self._problem!r}') from self._problem
            if self._closed:
                return
            self._wanted = (qpos, stamp)
            self._change.notify_all()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until every request is delivered; False where that took too long or failed."""
        with self._change:
            self._change.wait_for(
                lambda: self._problem is not None or (self._wanted is None and not self._busy),
                seconds)
            return self._problem is None and self._wanted is None and not self._busy

    def close(self) -> None:
        """End the thread and free its OpenGL context; a waiting request is dropped."""
        with self._change:
            self._closed, self._wanted = True, None
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
                picture = view.first_person(qpos)
                if not self._closed:
                    self._deliver(picture, stamp)
        except Exception as problem:  # noqa: BLE001 - told by the next request
            with self._change:
                if not self._closed:
                    self._problem = problem
                self._change.notify_all()
        finally:
            view.close()
