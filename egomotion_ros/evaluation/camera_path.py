# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a 1280x720 camera at 30 Hz costs ``egomotion_node``, and how soon an image becomes motion.

The camera is the package's own ``camera_node`` that plays a video in a loop, the robot a process
that follows what it is told; ``egomotion_node`` is brought up beside them and given an
instruction.  All are processes of their own, in a namespace of their own, and what is measured is
the process of ``egomotion_node``.
"""

from __future__ import annotations

from fractions import Fraction
import os
from pathlib import Path
import tempfile
import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String
from tqdm import tqdm

from egomotion_ros.demo.processes import Children, DemoError
from egomotion_ros.msg import RobotMotion, Status
from egomotion_ros.nodes.conversions import time_from_msg
from egomotion_ros.nodes.process import leave
from egomotion_ros.nodes.qos import profile

WIDTH, HEIGHT, RATE = 1280, 720, 30
#: Horizontal field of view of the clip (rad).
HFOV = 1.4
#: Pixels on every side by which a drawing of a room is larger than the pictures cut from it.
MARGIN = 32
#: Seconds between plans during the soak.
PERIOD = 2.0
TICKS = os.sysconf('SC_CLK_TCK')


def measure(
    bundle: str | Path = '',
    minutes: float = 10.0,
    *,
    robot: str = 'unitree_g1',
    recording: str | Path = '',
    hfov: float = 0.0,
    instruction: str = 'walk to the red ball',
    seconds: float = 20.0,
    progress: bool = True,
) -> dict:
    """
    Measure ``egomotion_node`` on a replayed camera; takes ``minutes`` and about a minute more.

    ``bundle`` folder, empty: the one that ships.  ``recording`` a video, folder of pictures or
    VRS file with ``hfov`` (rad, 0 where it is calibrated); empty: a clip of simulated rooms,
    drawn first.  ``seconds`` is the length of the two short measurements.

    Returns, in the order of measurement:

    * ``camera``: ``recording`` (name), ``rate`` (Hz, None for a given recording);
    * ``idle``: active, no instruction, nothing subscribed: ``seconds``, ``frames_sent_per_second``
      by the camera, ``frames_per_second`` taken by the node, ``frames_lost`` as the middleware
      says, ``cpu_percent`` of one core;
    * ``camera_path``: an instruction stands and no plan is being made; the same keys;
    * ``soak``: planning every two seconds for ``minutes``; the same keys, ``minutes``, ``plans``;
      ``latency_p50_ms``, ``latency_p95_ms`` from the arrival of the newest image to the whole
      motion published (steady clock, as the node says it), ``first_p50_ms``, ``first_p95_ms`` to
      its first points; ``stamp_p50_ms``, ``stamp_p95_ms`` from the stamp of the image to the whole
      motion heard by another process (ROS clock), ``first_stamp_p50_ms``, ``first_stamp_p95_ms``
      to its first points; ``memory_first_mb``,
      ``memory_half_mb``, ``memory_last_mb`` resident; ``codes`` of whatever ended the instruction
      (it is given again), empty on a run without trouble.

    Raises RuntimeError, with the last words of the processes, where one ends or does not answer,
    or where no plan was made; ValueError where the recording cannot be played.
    """
    if minutes <= 0.0 or seconds < 3.0:
        raise ValueError(f'expected minutes > 0 and seconds >= 3, got {minutes} and {seconds}')
    with tempfile.TemporaryDirectory(prefix='egomotion_camera_') as folder:
        camera = {'recording': Path(recording).name, 'rate': None}
        if not recording:
            recording, hfov = Path(folder, 'rooms.mp4'), HFOV
            camera = {'recording': draw_clip(recording, progress), 'rate': RATE}
        with Children(Path(folder), dict(os.environ)) as children:
            probe = Probe(children, f'/camera_path_{os.getpid()}')
            try:
                probe.start(str(bundle), robot, Path(recording), hfov)
                return {'camera': camera,
                        **_measure(probe, minutes, seconds, instruction, progress)}
            finally:
                probe.close()


def draw_clip(path: Path, progress: bool = True, rooms: int = 3, pictures: int = 60) -> str:
    """
    Write a 1280x720 H.264 video at 30 Hz of simulated rooms; return what it shows in words.

    ``pictures`` of each of ``rooms`` rooms, cut from one drawing of it along a small circle: every
    picture differs from the one before, and the drawing, slow without a GPU, is done once a room.
    """
    import av

    from egomotion_ros.data.render import SceneRenderer
    from egomotion_ros.data.scenes import scene_seed
    from egomotion_ros.data.scenes_furnished import draw_scene
    from egomotion_ros.types import CameraIntrinsics
    wide, high = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN
    hfov = 2.0 * np.arctan(np.tan(0.5 * HFOV) * wide / WIDTH)
    bar = tqdm(total=rooms * pictures, desc='drawing the clip', unit='picture', mininterval=1.0,
               disable=not progress)
    with bar, SceneRenderer(CameraIntrinsics(wide, high, float(hfov))) as renderer, \
            av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=RATE,
                                      options={'crf': '20', 'preset': 'superfast'})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.time_base = Fraction(1, RATE)
        for room in range(rooms):
            drawing = renderer.render(draw_scene(scene_seed('test', room), 'furnished'))
            for turn in np.linspace(0.0, 2.0 * np.pi, pictures, endpoint=False):
                left, top = (round(MARGIN * (1.0 + part(turn))) for part in (np.cos, np.sin))
                picture = drawing[top:top + HEIGHT, left:left + WIDTH]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
                container.mux(stream.encode(frame))
                bar.update()
        container.mux(stream.encode(None))
    return f'{rooms * pictures} pictures of {rooms} simulated rooms, {WIDTH}x{HEIGHT}'


class Probe:
    """Brings the nodes up, gives work, and reads what ``egomotion_node`` says and costs."""

    def __init__(self, children: Children, namespace: str) -> None:
        self._children, self._namespace = children, namespace
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('probe', context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        #: Newest diagnostics and their stamp (ns).
        self.values: dict[str, str] = {}
        self.stamp = 0
        #: Milliseconds, a plan each, as the node says and as heard here: whole, first points.
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.delays: list[float] = []
        self.first_delays: list[float] = []
        self._heard = ''
        self.codes: list[int] = []
        self._sent = self._node_pid = 0
        for kind, topic, callback, qos in (
                (DiagnosticArray, 'diagnostics', self._on_diagnostics, 'default'),
                (Status, 'status', self._on_status, 'latched'),
                (RobotMotion, 'robot_motion', self._on_motion, 'motion')):
            self.node.create_subscription(kind, topic, callback, profile(qos))
        # One comes with every image.
        self.node.create_subscription(CameraInfo, 'camera_info', self._on_info,
                                      QoSProfile(depth=100))
        self._speaker = self.node.create_publisher(String, 'instruction', profile('command'))
        self._change = self.node.create_client(ChangeState, 'egomotion_node/change_state')
        self._set = self.node.create_client(SetParameters, 'egomotion_node/set_parameters')

    def start(self, bundle: str, robot: str, recording: Path, hfov: float) -> None:
        """Start the processes, bring ``egomotion_node`` up to active, wait for the camera."""
        # Another load on the machine may starve camera or robot; that is not what is measured.
        patient = {'joint_states.timeout': 10.0, 'odom.timeout': 10.0, 'image.timeout': 10.0}
        node = {'robot': robot, **patient}
        if bundle:
            node['bundle'] = f"'{Path(bundle).resolve()}'"
        camera = {'path': f"'{recording.resolve()}'", 'loop': 'true', 'longest_side': WIDTH,
                  'horizontal_fov': hfov}
        for name, module, values in (
                ('camera_node', 'egomotion_ros.nodes.camera_node', camera),
                ('stand_in', 'egomotion_ros.evaluation.stand_in', {'robot': robot}),
                ('egomotion_node', 'egomotion_ros.nodes.egomotion_node', node)):
            words = ['--ros-args', '-r', f'__ns:={self._namespace}']
            for key, value in values.items():
                words += ['-p', f'{key}:={value}']
            self._children.start(name, module, words)
        self._node_pid = self._children.pid('egomotion_node')
        for topic in ('image', 'joint_states'):
            self._until(lambda topic=topic: self.node.count_publishers(topic), 60.0,
                        f'{topic} to be published')
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            if not self._call(self._change,
                              ChangeState.Request(transition=Transition(id=step))).success:
                raise DemoError('egomotion_node could not be activated\n'
                                + self._children.last_words('egomotion_node'))

    def close(self) -> None:
        """Leave the network."""
        leave(self._executor, self.node)

    def say(self, text: str, replan_period: float) -> None:
        """Give an instruction, planned anew every ``replan_period`` seconds; all plans count."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in (
            ('replan_period', replan_period), ('goal_memory', False))]
        self._call(self._set, SetParameters.Request(parameters=parameters))
        self._until(self._speaker.get_subscription_count, 10.0, 'a reader of instruction')
        self._speaker.publish(String(data=text))

    def until_planned(self, count: int) -> None:
        """Wait until ``count`` plans have been published since the lists were cleared."""
        self._until(lambda: len(self.latencies) >= count or self.codes, 120.0, 'a first plan')

    def spin(self, seconds: float) -> None:
        """Listen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=min(0.1, max(end - time.monotonic(), 0.0)))
        self._children.check()

    def figures(self, seconds: float) -> dict[str, float]:
        """Frames per second, frames lost and share of a core over about ``seconds``."""
        self._next_report()
        before, first, cpu, start = self._counts(), self.stamp, self._cpu(), time.monotonic()
        sent = self._sent
        self.spin(seconds)
        self._next_report()
        spent, after = time.monotonic() - start, self._counts()
        return {
            'seconds': spent,
            'frames_sent_per_second': (self._sent - sent) / spent,
            'frames_per_second': (after[0] - before[0]) / (1e-9 * (self.stamp - first)),
            'frames_lost': after[1] - before[1],
            'cpu_percent': 100.0 * (self._cpu() - cpu) / spent,
        }

    def memory(self) -> float:
        """Resident memory of ``egomotion_node`` (MB)."""
        pages = Path(f'/proc/{self._node_pid}/statm').read_text().split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE') / 1e6

    def _cpu(self) -> float:
        """CPU seconds of ``egomotion_node`` so far."""
        fields = Path(f'/proc/{self._node_pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _counts(self) -> tuple[int, int]:
        """Images the node took so far, and those the middleware says it lost."""
        return (int(self.values.get('image received', 0)),
                int(self.values.get('image lost by the transport', 0)))

    def _next_report(self) -> None:
        stamp = self.stamp
        self._until(lambda: self.stamp != stamp, 20.0, 'diagnostics')

    def _until(self, ready, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            self.spin(0.0)
            self._executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > deadline:
                raise DemoError(f'waited {seconds:.0f} s for {what}\n'
                                + self._children.every_last_word())

    def _call(self, client, request):
        self._until(client.service_is_ready, 60.0, client.srv_name)
        future = client.call_async(request)
        self._until(future.done, 120.0, f'an answer of {client.srv_name}')
        return future.result()

    def _on_info(self, message: CameraInfo) -> None:
        self._sent += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.values = {item.key: item.value for item in message.status[0].values}
        self.stamp = time_from_msg(message.header.stamp)

    def _on_status(self, message: Status) -> None:
        if message.code:
            self.codes.append(message.code)
        elif message.state == Status.EXECUTING and message.latency_ms > 0:
            self.latencies.append(message.latency_ms)
            self.firsts.append(message.first_ms)

    def _on_motion(self, message: RobotMotion) -> None:
        if message.hold:
            return
        seen = time_from_msg(message.plan.observation_stamp)
        delay = 1e-6 * (self.node.get_clock().now().nanoseconds - seen)
        if message.plan.plan_id != self._heard:
            self._heard = message.plan.plan_id
            self.first_delays.append(delay)
        if not message.unfinished:
            self.delays.append(delay)


def _measure(probe: Probe, minutes: float, seconds: float, instruction: str,
             progress: bool) -> dict:
    report: dict[str, dict] = {}
    probe.spin(2.0)
    report['idle'] = _rounded(probe.figures(seconds))
    # One plan now, the next one when the measurement is over.
    probe.say(instruction, min(seconds + 15.0, 60.0))
    probe.until_planned(1)
    probe.spin(1.0)
    report['camera_path'] = _rounded(probe.figures(seconds))
    probe.say(instruction, PERIOD)
    probe.until_planned(len(probe.latencies) + 2)
    for kept in (probe.latencies, probe.firsts, probe.delays, probe.first_delays, probe.codes):
        kept.clear()
    memory, parts, codes = [probe.memory()], [], []
    length = min(10.0, 60.0 * minutes)
    for _ in tqdm(range(max(round(60.0 * minutes / length), 1)), desc='soak', unit='part',
                  mininterval=1.0, disable=not progress):
        parts.append(probe.figures(length))
        memory.append(probe.memory())
        if probe.codes:
            codes += probe.codes
            probe.codes.clear()
            probe.say(instruction, PERIOD)
    if not probe.latencies:
        raise DemoError(f'no plan was published within {minutes} minutes; codes {codes}')
    spent = sum(part['seconds'] for part in parts)

    def mean(name: str) -> float:
        return sum(part[name] * part['seconds'] for part in parts) / spent

    def share(values: list[float], percent: int) -> int:
        return round(float(np.percentile(values, percent)))

    report['soak'] = _rounded({
        'seconds': spent, 'frames_sent_per_second': mean('frames_sent_per_second'),
        'frames_per_second': mean('frames_per_second'),
        'frames_lost': sum(part['frames_lost'] for part in parts),
        'cpu_percent': mean('cpu_percent')}) | {
        'minutes': round(spent / 60.0, 1), 'plans': len(probe.latencies),
        **{f'{name}_p{percent}_ms': share(values, percent) for name, values in (
            ('first', probe.firsts), ('latency', probe.latencies),
            ('first_stamp', probe.first_delays), ('stamp', probe.delays))
           for percent in (50, 95)},
        'memory_first_mb': round(memory[0], 1),
        'memory_half_mb': round(memory[len(memory) // 2], 1),
        'memory_last_mb': round(memory[-1], 1), 'codes': sorted(set(codes))}
    return report


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in figures.items()}
