# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A real ``egomotion_node`` over real DDS, and a small world around it.

The world sends camera, joint states and odometry of a robot that follows what it is told, and
keeps everything the node says.  Each harness has a namespace of its own, so that several test
processes can share a domain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
import itertools
import math
import os
import threading
import time

from geometry_msgs.msg import Quaternion
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from egomotion_ros.action import GenerateMotion
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.msg import HumanMotion, MotionPrimitives, RobotMotion, Status
from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg, time_to_msg
from egomotion_ros.nodes.egomotion_node import EgoMotionNode, spin
from egomotion_ros.nodes.process import end, leave
from egomotion_ros.nodes.qos import profile
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.joining import sample

_COUNT = itertools.count()
#: Patience (s) with a machine that has other things to do; tests of staleness set their own.
PATIENCE = {'joint_states.timeout': 5.0, 'odom.timeout': 5.0, 'image.max_age': 3.0,
            'image.timeout': 5.0}
#: Plans of made-up weights lead anywhere; tests of the memory itself set it.
FORGETFUL = {'goal_memory': False}
CONFIGURE = Transition.TRANSITION_CONFIGURE
CLEANUP = Transition.TRANSITION_CLEANUP
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE


class GatedPipeline:
    """
    The real pipeline with a gate before each stage, so that a test can stand in between.

    The gate ``rest`` is passed once the first part of a plan was handed over; ``fail_rest`` is
    raised behind it.
    """

    def __init__(self, pipeline: EgoMotionPipeline) -> None:
        self._pipeline = pipeline
        self.gates = {name: threading.Event()
                      for name in ('reason', 'generate', 'retarget', 'rest')}
        self.reached = {name: threading.Event() for name in self.gates}
        self.closed = False
        self.prefixes: list = []
        self.observations: list = []
        self.guidance: list = []
        self.fail: Exception | None = None
        self.fail_rest: Exception | None = None
        self.open_all()

    def __getattr__(self, name: str):
        return getattr(self._pipeline, name)

    def open_all(self) -> None:
        for gate in self.gates.values():
            gate.set()

    def shut(self, stage: str) -> None:
        self.reached[stage].clear()
        self.gates[stage].clear()

    def reason(self, observation, plan_id, seed):
        self._pass('reason')
        self.observations.append(observation)
        if self.fail is not None:
            raise self.fail
        return self._pipeline.reason(observation, plan_id, seed)

    def generate(self, primitives, prefix=None, seed=None, guidance=None, steps=None,
                 candidates=None):
        self._pass('generate')
        self.prefixes.append(prefix)
        self.guidance.append(guidance)
        return self._pipeline.generate(primitives, prefix, seed, guidance, steps, candidates)

    def retarget(self, human, joints, root, velocities, first, on_first):
        self._pass('retarget')

        def hand_over(part):
            on_first(part)
            self._pass('rest')
            if self.fail_rest is not None:
                raise self.fail_rest

        return self._pipeline.retarget(
            human, joints, root, velocities, first, on_first and hand_over
        )

    def close(self) -> None:
        self.closed = True

    def _pass(self, stage: str) -> None:
        self.reached[stage].set()
        if not self.gates[stage].wait(120.0):
            raise RuntimeError(f'the gate {stage} stayed shut')


class Leading:
    """
    Stands in for the generator: the body glides and turns to ``to`` in a second and stands.

    It begins with that where the known prefix, during which it stood, ends.
    """

    def __init__(self, harness: Harness, x: float, y: float, turn: float,
                 from_here: bool = False) -> None:
        self.to, self.from_here = (x, y, turn), from_here
        self._made = harness.pipeline.generate
        harness.pipeline.generate = self._generate

    def _generate(self, primitives, prefix, *rest):
        motion, root = self._made(primitives, prefix, *rest), primitives.root
        x, y, yaw = self.to
        if self.from_here:
            x, y, yaw = root.x + x, root.y + y, root.yaw + yaw
        known = 0 if prefix is None else prefix.frames
        share = np.clip((np.arange(motion.frames) - known) / motion.fps, 0.0, 1.0)[:, None]
        turn = math.remainder(yaw - root.yaw, 2 * math.pi)
        upright = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        rotations = np.tile(np.eye(3), (motion.frames, 22, 1, 1))
        rotations[:, 0] = axis_angle_to_matrix(
            (root.yaw + share * turn) * [0.0, 0.0, 1.0]) @ upright
        start = np.array([root.x, root.y])
        place = np.concatenate([start + share * (np.array([x, y]) - start),
                                np.full((motion.frames, 1), 0.95 * motion.scale)], axis=1)
        return replace(motion, root_position=place, rotations=rotations)


@dataclass
class Heard:
    """Everything the node said, in order."""

    motions: list[RobotMotion] = field(default_factory=list)
    previews: list[RobotMotion] = field(default_factory=list)
    trajectories: list[JointTrajectory] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    humans: list[HumanMotion] = field(default_factory=list)
    primitives: list[MotionPrimitives] = field(default_factory=list)
    statuses: list[tuple[int, int, str]] = field(default_factory=list)
    messages: list[Status] = field(default_factory=list)

    @property
    def plans(self) -> list[str]:
        """Plans that something of was published, in order; each may be two messages."""
        return list(dict.fromkeys(m.plan.plan_id for m in self.motions))


class Harness:
    """One node under test, the world around it, and a client's hands."""

    def __init__(
        self, pipeline: EgoMotionPipeline | None, sim_time: bool = False, load=None, **parameters
    ) -> None:
        """Bring the node up to active unless ``load`` replaces the way its pipeline is made."""
        self.namespace = f'/t{os.getpid()}_{next(_COUNT)}'
        self.context = Context()
        rclpy.init(context=self.context)
        self.pipeline = None if pipeline is None else GatedPipeline(pipeline)
        self.sim_time = sim_time
        #: What simulated time advances by each time the world is published (every 20 ms at best).
        self.tick_ns = 20_000_000
        values = {'use_sim_time': sim_time, 'camera.hfov': 1.4, **PATIENCE, **FORGETFUL,
                  **parameters}
        try:
            self.node = EgoMotionNode(
                load_pipeline=load or (lambda **_: self.pipeline),
                context=self.context,
                namespace=self.namespace,
                cli_args=['--ros-args', '-r', f'/clock:={self.namespace}/clock'],
                parameter_overrides=[Parameter(name, value=value)
                                     for name, value in values.items()],
            )
        except Exception:
            rclpy.shutdown(context=self.context)
            self.context.destroy()
            raise
        self.world = rclpy.create_node('world', context=self.context, namespace=self.namespace)
        self.heard = Heard()
        self._group = ReentrantCallbackGroup()
        self._make_world()
        self._threads, self._done = [], threading.Event()
        for executor, node in (
            (MultiThreadedExecutor(4, context=self.context), self.node),
            (SingleThreadedExecutor(context=self.context), self.world),
        ):
            executor.add_node(node)
            thread = threading.Thread(target=spin, args=(executor, node, self._done), daemon=True)
            thread.start()
            self._threads.append((executor, thread))
        if load is None and self.pipeline is not None:
            assert self.transition(CONFIGURE)
            assert self.transition(ACTIVATE)

    # The world --------------------------------------------------------------------------------
    def _make_world(self) -> None:
        world = self.world
        self.images = world.create_publisher(Image, 'image', profile('sensor'))
        self.compressed = world.create_publisher(
            CompressedImage, 'image/compressed', profile('sensor')
        )
        self.infos = world.create_publisher(CameraInfo, 'camera_info', profile('sensor'))
        self.joints = world.create_publisher(JointState, 'joint_states', profile('state'))
        self.odoms = world.create_publisher(Odometry, 'odom', profile('state'))
        self.clocks = world.create_publisher(ClockMsg, f'{self.namespace}/clock', profile('state'))
        self.words = world.create_publisher(String, 'instruction', profile('command'))
        for kind, topic, where in (
            (RobotMotion, 'robot_motion_preview', self.heard.previews),
            (JointTrajectory, 'joint_trajectory', self.heard.trajectories),
            (HumanMotion, 'human_motion', self.heard.humans),
            (MotionPrimitives, 'motion_primitives', self.heard.primitives),
        ):
            world.create_subscription(kind, topic, where.append, profile('motion'))
        world.create_subscription(RobotMotion, 'robot_motion', self._moved, profile('motion'))
        world.create_subscription(Status, 'status', self._said, profile('latched'))
        self.action = ActionClient(world, GenerateMotion, 'generate_motion')
        self.stopper = world.create_client(Trigger, 'egomotion_node/stop')
        self.changer = world.create_client(ChangeState, 'egomotion_node/change_state')
        self.getter = world.create_client(GetState, 'egomotion_node/get_state')
        self.camera_on = self.joints_on = self.odom_on = True
        #: Seconds added to the stamps of images.
        self.image_shift = 0.0
        #: Stamp that joint states keep, None: the time.
        self.frozen: int | None = None
        self.image = Image(width=64, height=48, encoding='rgb8', step=192)
        pixels = np.random.default_rng(0).integers(0, 255, 64 * 48 * 3, dtype=np.uint8)
        self.image.data = pixels.tobytes()
        self.compressed_image: CompressedImage | None = None
        self.info: CameraInfo | None = None
        self.joint_state: JointState | None = None
        #: Simulated time (ns), used where the node uses simulated time.
        self.now_ns = 10_000_000_000
        self.time_runs = True
        self._followed: tuple = (None, None)
        #: How often joint states of the newest motion were sent.
        self.followed = 0
        self._alive = True
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def now(self) -> int:
        """Time of the world (ns)."""
        return self.now_ns if self.sim_time else self.world.get_clock().now().nanoseconds

    def robot_state(self, now: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints, base position and quaternion: exactly what was commanded."""
        if self.pipeline is None:
            return np.zeros(29), np.array([0.0, 0.0, 0.75]), np.array([0.0, 0.0, 0.0, 1.0])
        robot = self.pipeline.robot
        if not self.heard.motions:
            height = np.array([0.0, 0.0, robot.home_height])
            return robot.standing, height, np.array([0.0, 0.0, 0.0, 1.0])
        message = self.heard.motions[-1]
        if self._followed[0] is not message:
            self._followed = message, robot_from_msg(message)
            self.followed = 0
        self.followed += 1
        start = time_from_msg(message.plan.header.stamp)
        state = sample(self._followed[1], 1e-9 * (now - start))
        return state.positions, state.root_position, state.root_quaternion

    def _live(self) -> None:
        while self._alive:
            if self.sim_time and self.time_runs:
                self.now_ns += self.tick_ns
            try:
                self.publish_once()
            except Exception:
                if self._alive and self.context.ok():
                    raise
            time.sleep(0.02)

    def publish_once(self) -> None:
        now = self.now()
        stamp = ClockMsg().clock
        stamp.sec, stamp.nanosec = divmod(now, 1_000_000_000)
        if self.sim_time:
            self.clocks.publish(ClockMsg(clock=stamp))
        positions, base, quaternion = self.robot_state(now)
        if self.joints_on and self.pipeline is not None:
            state = self.joint_state
            if state is None:
                state = JointState(
                    name=list(self.pipeline.robot.joint_names), position=positions.tolist()
                )
            state.header.stamp = stamp if self.frozen is None else time_to_msg(self.frozen)
            self.joints.publish(state)
        if self.odom_on:
            odom = Odometry()
            odom.header.stamp = stamp
            odom.header.frame_id = 'odom'
            place = odom.pose.pose.position
            place.x, place.y, place.z = base.tolist()
            x, y, z, w = quaternion.tolist()
            odom.pose.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
            self.odoms.publish(odom)
        if self.camera_on:
            image = self.image if self.compressed_image is None else self.compressed_image
            seen = max(now + round(1e9 * self.image_shift), 0)
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(seen, 1_000_000_000)
            (self.images if image is self.image else self.compressed).publish(image)
            if self.info is not None:
                self.info.header.stamp = image.header.stamp
                self.infos.publish(self.info)

    def _moved(self, message: RobotMotion) -> None:
        self.heard.arrivals.append(self.now())
        self.heard.motions.append(message)

    def _said(self, message: Status) -> None:
        self.heard.messages.append(message)
        self.heard.statuses.append((message.state, message.code, message.instruction))

    # Hands ------------------------------------------------------------------------------------
    def wait(self, condition: Callable[[], object], timeout: float = 60.0, what: str = ''):
        """Return what ``condition`` gives once it is true; fails after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, (
                f'{what or "the condition"} did not come true within {timeout} s; '
                f'heard {self.heard.statuses[-5:]}'
            )
            time.sleep(0.005)
        return value

    def call(self, client, request, timeout: float = 60.0):
        """Call a service and wait for its answer."""
        assert client.wait_for_service(timeout_sec=10.0), client.srv_name
        future = client.call_async(request)
        self.wait(future.done, timeout, client.srv_name)
        return future.result()

    def transition(self, number: int, timeout: float = 60.0) -> bool:
        """
        Ask for a lifecycle transition.

        On a busy machine the node may not know yet whom to answer: the answer is lost, the
        transition is done.  After five seconds of silence the state tells.
        """
        wanted = {CONFIGURE: 'inactive', CLEANUP: 'unconfigured', ACTIVATE: 'active',
                  DEACTIVATE: 'inactive'}.get(number)
        assert self.changer.wait_for_service(timeout_sec=timeout), self.changer.srv_name
        request = ChangeState.Request(transition=Transition(id=number))
        answer, asked = self.changer.call_async(request), []
        patience = time.monotonic() + 5.0

        def arrived() -> bool:
            if time.monotonic() > patience + 2.0 * len(asked):
                asked.append(self.getter.call_async(GetState.Request()))
            return answer.done() or any(
                state.done() and state.result().current_state.label == wanted for state in asked
            )

        self.wait(arrived, timeout, self.changer.srv_name)
        return not answer.done() or answer.result().success

    def state(self) -> str:
        """Label of the lifecycle state."""
        return self.call(self.getter, GetState.Request()).current_state.label

    def stop(self) -> Trigger.Response:
        """Call ~/stop."""
        return self.call(self.stopper, Trigger.Request())

    def say(self, text: str) -> None:
        """Publish an instruction, once the node listens."""
        self.wait(self.words.get_subscription_count, what='a subscriber of instruction')
        self.words.publish(String(data=text))

    def send(self, instruction: str, **fields):
        """Send a goal; returns its handle."""
        assert self.action.wait_for_server(timeout_sec=10.0)
        fields.setdefault('execute', True)
        self.feedback: list = []
        goal = GenerateMotion.Goal(instruction=instruction, **fields)
        feedback = self.feedback

        def send():
            return self.action.send_goal_async(goal, lambda m: feedback.append(m.feedback))

        return self._ask(send, 60.0, 'the answer to the goal')

    def result(self, handle, timeout: float = 60.0):
        """Wait for the result of a goal: (status, result)."""
        answer = self._ask(handle.get_result_async, timeout, 'the result')
        return answer.status, answer.result

    def _ask(self, send: Callable, timeout: float, what: str):
        # Sent by the executor's thread: rclpy notes a request only after it was sent.
        task = self._threads[1][0].create_task(send)
        self.wait(task.done, timeout, what)
        self.wait(task.result().done, timeout, what)
        return task.result().result()

    def run(self, instruction: str, **fields):
        """Send a goal and wait for its result."""
        return self.result(self.send(instruction, **fields))

    def wait_status(self, state: int, code: int | None = None, since: int = 0) -> Status:
        """Wait for a status message after the first ``since``."""

        def found():
            return next(
                (
                    m
                    for m in self.heard.messages[since:]
                    if m.state == state and (code is None or m.code == code)
                ),
                None,
            )

        return self.wait(found, what=f'status {state} with code {code}')

    def set(self, **values) -> None:
        """Set parameters of the node; asserts success."""
        for name, value in values.items():
            answer = self.node.set_parameters([Parameter(name, value=value)])[0]
            assert answer.successful, answer.reason

    def close(self) -> None:
        """End everything."""
        if self.pipeline is not None:
            self.pipeline.open_all()
        self._alive = False
        self._thread.join(5.0)
        try:
            self.node.trigger_shutdown()
        except Exception:  # finalized already
            pass
        self._done.set()
        for executor, thread in self._threads:
            end(executor, thread)
        self.action.destroy()
        leave(executor, self.world, self.node)

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def whole(harness: Harness) -> list[RobotMotion]:
    """Return the motions heard, without the beginnings that were sent ahead of them."""
    return [m for m in harness.heard.motions if not (m.unfinished or m.hold)]
