# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One base class owns every lifecycle transition of the package's nodes.

rclpy swallows the traceback of a failing transition, and an invalid transition requested over the
network raises inside the executor and ends the process.  Both are cured here.  A subclass writes
``setup``, ``start``, ``halt`` and ``teardown``; this class decides the state they lead to:

* ``setup`` or ``start`` raises ValueError or OSError (bad parameter, missing file): logged in one
  line, the node stays where it was.
* any other exception: logged with its traceback, everything is torn down, the node is
  unconfigured again.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import threading
import traceback

from lifecycle_msgs.msg import State
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from egomotion_ros.nodes.clock import ClockApart

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


class ManagedNode(ClockApart, LifecycleNode):
    """A lifecycle node whose errors are logged and land in the right state."""

    def __init__(self, name: str, **options) -> None:
        super().__init__(name, **options)
        self.transitions = threading.RLock()
        self._survive_invalid_transitions()

    # What a node does -------------------------------------------------------------------------
    def setup(self) -> None:
        """Load models and make publishers (configure)."""

    def start(self) -> None:
        """Begin to work (activate); publishers are enabled already."""

    def halt(self) -> None:
        """End work safely (deactivate, shutdown); publishers are still enabled."""

    def teardown(self) -> None:
        """Free what :meth:`setup` made; must cope with a half-done setup."""

    # Transitions ------------------------------------------------------------------------------
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`setup`; a failure leaves nothing behind."""
        result = self._attempt('configure', self.setup)
        if result == FAILURE:
            self._attempt('configure', self.teardown)
        return result if result != SUCCESS else super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enable the publishers, then run :meth:`start`."""
        super().on_activate(state)
        result = self._attempt('activate', self.start)
        if result != SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`halt` while the publishers still work, then disable them."""
        result = self._attempt('deactivate', self.halt)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`teardown`."""
        super().on_cleanup(state)
        return self._attempt('cleanup', self.teardown)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Halt where the node was active, then tear down; never refuses."""
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self._attempt('shutdown', self.halt)
        super().on_deactivate(state)
        self._attempt('shutdown', self.teardown)
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception: halt, tear down, unconfigured."""
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self._attempt('error handling', self.halt)
        super().on_deactivate(state)
        return SUCCESS if self._attempt('error handling', self.teardown) == SUCCESS else FAILURE

    def destroy_node(self) -> None:
        """
        Free what DDS was given, at once.

        rclpy forgets the state machine, which keeps the node in the graph until the garbage
        collector comes by: perhaps in the middle of the making of another node.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    @property
    def state_label(self) -> str:
        """Label of the current lifecycle state, such as ``active``."""
        return self._state_machine.current_state[1]

    def guarded(self, callback: Callable) -> Callable:
        """Wrap ``callback`` so that an exception is logged instead of ending the executor."""

        @functools.wraps(callback)
        def call(*args, **kwargs):
            try:
                return callback(*args, **kwargs)
            except ExternalShutdownException:
                raise
            except Exception:
                self.get_logger().error(
                    f'{getattr(callback, "__name__", "callback")} failed:\n'
                    f'{traceback.format_exc()}'
                )
                return None

        return call

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        with self.transitions:
            try:
                step()
            except (ValueError, OSError) as error:
                self.get_logger().error(f'{what}: {error}')
                return FAILURE
            except Exception:
                self.get_logger().error(f'{what} failed:\n{traceback.format_exc()}')
                return ERROR
            return SUCCESS

    def _survive_invalid_transitions(self) -> None:
        """Answer a transition that the state does not allow with success=False."""
        service = self._service_change_state
        original = service.callback

        def change_state(request, response):
            try:
                return original(request, response)
            except Exception as error:
                wanted = request.transition.label or request.transition.id
                self.get_logger().error(
                    f'transition {wanted} is not possible in state {self.state_label!r}: {error}'
                )
                response.success = False
                return response

        service.callback = change_state
