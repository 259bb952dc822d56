# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The managed node: camera and instruction in, motion out.

This file wires; :mod:`controller` decides, :mod:`handover` makes motion of plans, :mod:`planning`
thinks, :mod:`observer` looks and :mod:`outputs` speaks.  Topics, parameters and the action are
listed in ``docs/reference``.
"""

from __future__ import annotations

from collections.abc import Callable
import signal
import sys
import threading

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockChange, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from egomotion_ros.nodes.controller import Controller
from egomotion_ros.nodes.diagnostics import Health
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.goals import GoalServer
from egomotion_ros.nodes.heartbeat import Heartbeat
from egomotion_ros.nodes.lifecycle import ManagedNode
from egomotion_ros.nodes.observer import Observer
from egomotion_ros.nodes.outputs import Outputs
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.process import destroyed_on_failure, leave
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.receiver import Receiver
from egomotion_ros.nodes.stages import GenerateController, ReasonController
from egomotion_ros.nodes.watch import TOLD_JUMP

#: Who decides and who looks, by the parameter ``stages``.
STAGES = {
    'all': (Controller, Observer),
    'reason': (ReasonController, Observer),
    'generate': (GenerateController, Receiver),
}
#: Threads of the executor: orders, stop, one waiting goal, one ending goal.
THREADS = 4
#: Jumps of the clock that are none: another one takes its place.
SWITCHED = (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED)
#: Longest time (s) that deactivation waits until subscribers have the stop.
FLUSH = 0.3


def _load(**options):
    """Open the real pipeline; imported late so that the node answers at once."""
    from egomotion_ros.pipeline import EgoMotionPipeline

    return EgoMotionPipeline.load(**options)


class EgoMotionNode(ManagedNode):
    """``egomotion_node``; ``load_pipeline`` may be replaced by another maker of pipelines."""

    def __init__(self, load_pipeline: Callable = _load, **options) -> None:
        super().__init__('egomotion_node', **options)
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._goals = self._jump = None
        with destroyed_on_failure(self):
            self.parameters = Parameters(self)
        self.parameters.on_change = self._parameters_changed
        self._load_pipeline = load_pipeline
        self.pipeline = self.observer = self.outputs = self.controller = self.health = None
        # Re-entrant: what stops motion waits for nothing but the controller's short lock.
        self._control = ReentrantCallbackGroup()
        self._instruction = None
        self._stages = self.parameters['stages']
        # One namespace holds both halves: goals go to the one that moves, which says why not.
        self._goals = None if self._stages == 'reason' else GoalServer(self)
        self._stop = self.create_service(
            Trigger, '~/stop', self._on_stop, callback_group=self._control
        )
        self._heart = Heartbeat(self._on_tick, self._on_report, self.get_logger().error)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(seconds=TOLD_JUMP),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            pre_callback=self.guarded(self._before_jump),
            post_callback=self.guarded(self._on_jump),
        )

    # Lifecycle --------------------------------------------------------------------------------
    def setup(self) -> None:
        """Load the bundle and make the publishers."""
        p = self.parameters
        try:
            self.pipeline = self._load_pipeline(
                bundle_dir=p['bundle'] or None,
                robot=p['robot'],
                backend=p['backend'],
                threads=p['threads'],
                stages=self._stages,
            )
        except RuntimeError as error:
            raise ValueError(f'backend {p["backend"]}: {error}') from error
        self.pipeline.warm_up()
        p.frozen = True
        reason = self.pipeline.fallback_reason
        backend = self.pipeline.backend + (f' because of {reason}' if reason else '')
        self.health = Health(self.get_fully_qualified_name(), backend, self.pipeline.bundle.hash)
        self.outputs = Outputs(self, p, self.pipeline.robot)
        decides, looks = STAGES[self._stages]
        self.observer = looks(self, p, self.pipeline)
        self.controller = decides(
            self, p, self.pipeline, self.observer, self.outputs, self.health, self._heart.hurry
        )
        self.get_logger().info(
            f'bundle {self.pipeline.bundle.hash[:12]} on {backend} for '
            f'{self.pipeline.robot.name}, stages: {self._stages}, output '
            f'{"enabled" if p["output_enabled"] else "disabled"}'
        )

    def start(self) -> None:
        """Listen to instructions and goals, or primitives; none is left over from before."""
        self.controller.start()
        if self._goals is not None:
            self._goals.serve(self.controller)
        if self._stages == 'generate':
            self.observer.listen(self.controller.receive)
        else:
            self._instruction = self.create_subscription(
                String,
                'instruction',
                self.guarded(self._on_instruction),
                profile(self.parameters['qos.instruction']),
                callback_group=self._control,
            )
        self._heart.start()

    def halt(self) -> None:
        """Take no more orders, stop what moves, stop listening."""
        if self._goals is not None:
            self._goals.serve(None)
        if self._stages == 'generate':
            self.observer.deafen()
        if self._instruction is not None:
            self.destroy_subscription(self._instruction)
            self._instruction = None
        if self.controller.end():
            self.outputs.flush(FLUSH)
        self._heart.stop()
        self.observer.close()

    def teardown(self) -> None:
        """Free the models and everything around them."""
        self._heart.stop()
        if self.controller is not None:
            self.controller.close()
        if self.observer is not None:
            self.observer.destroy()
        if self.outputs is not None:
            self.outputs.close()
        if self.pipeline is not None:
            self.pipeline.close()
        self.pipeline = self.observer = self.outputs = self.controller = self.health = None
        self.parameters.frozen = False

    def destroy_node(self) -> None:
        """Leave the network, with the action and the watch over the clock."""
        if self._goals is not None:
            self._goals.destroy()
        if self._jump is not None:
            self._jump.unregister()
        super().destroy_node()

    # Callbacks --------------------------------------------------------------------------------
    def _on_instruction(self, message: String) -> None:
        controller = self.controller
        if controller is not None and self._instruction is not None:
            controller.instruct(message.data)

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response):
        controller = self.controller
        if controller is None:
            response.success, response.message = True, f'nothing moves: {self.state_label}'
            return response
        try:
            stopped = controller.halt(ErrorCode.STOPPED, 'stop was called')
        except Exception as error:
            self.get_logger().error(f'stop failed: {error}')
            response.success, response.message = False, str(error)
            return response
        response.success = True
        response.message = 'stopping' if stopped else 'nothing was moving'
        return response

    def _on_tick(self) -> bool:
        return self.controller.tick()

    def _on_report(self) -> None:
        self.outputs.diagnostics(
            self.health.report(
                self.get_clock().now().to_msg(),
                self.controller.status.name,
                self.observer,
                self.parameters['output_enabled'],
            )
        )

    def _before_jump(self) -> None:
        if self.controller is not None:
            self.controller.before_clock_jump()

    def _on_jump(self, jump: TimeJump) -> None:
        if self.controller is not None:
            if jump.clock_change in SWITCHED:
                self.get_logger().warning('another clock: use_sim_time was switched')
                self.controller.on_clock_jump(None)
                return
            self.get_logger().warning(
                f'clock jumped by {1e-9 * jump.delta.nanoseconds:.3f} s', throttle_duration_sec=5.0
            )
            self.controller.on_clock_jump(jump.delta.nanoseconds)

    def _parameters_changed(self, names: set[str]) -> None:
        if 'output_enabled' in names and self.controller is not None:
            self.controller.on_output_switched(self.parameters['output_enabled'])


def spin(executor: Executor, node: ManagedNode, done: threading.Event) -> None:
    """Serve ``node`` until ``done``, whatever its callbacks raise."""
    while node.context.ok() and not done.is_set():
        try:
            executor.spin_once(timeout_sec=0.5)
        except ExternalShutdownException:
            return
        except InvalidHandle:
            continue  # an entity was destroyed while it was waited for
        except Exception as error:
            node.get_logger().error(f'a callback failed: {error!r}')


def run(node: ManagedNode) -> None:
    """
    Spin ``node`` until SIGINT or SIGTERM, then end it and ROS: motion stops before DDS does.

    rclpy's own signal handlers must be off, they would close the publishers first.
    """
    ending, done = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    executor = MultiThreadedExecutor(num_threads=THREADS, context=node.context)
    executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor, node, done), daemon=True)
    thread.start()
    while not ending.wait(0.5) and thread.is_alive():
        pass
    try:
        node.trigger_shutdown()
    except Exception as error:
        node.get_logger().error(f'shutdown: {error!r}')
    done.set()
    leave(executor, node, thread=thread)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = EgoMotionNode()
    except (ValueError, ParameterException) as error:
        print(f'egomotion_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    run(node)
    return 0


if __name__ == '__main__':
    sys.exit(main())
