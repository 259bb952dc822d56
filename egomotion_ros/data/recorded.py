# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Episodes of real recordings: what a head camera saw, what was said of it, how the body moved.

A recording is a motion file, the video of a camera worn on the head and sentences with times, all
on the video's clock.  Every sentence is an episode: the first picture at or after its beginning,
the pose of the camera there, and the five seconds of motion that follow.  They stand in an
episode set beside simulated ones (:mod:`egomotion_ros.data.episodes`) and train the same stages;
nothing of what they show is named, so that they teach no grounding of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import csv
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from egomotion_ros.body.edits import canonicalize, ground_pose, resample, slice_frames
from egomotion_ros.body.features import motion_to_features
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data import importer_checks as checks
from egomotion_ros.data.importer import read_recordings
from egomotion_ros.data.looks import head_pose
from egomotion_ros.data.mapping import Mapping
from egomotion_ros.data.scenes import CAMERA
from egomotion_ros.data.synthesis import FRAMES
from egomotion_ros.nodes.rectify import Lens, Rectifier
from egomotion_ros.nodes.sources import Calibration, Source, load_calibration, open_source
from egomotion_ros.text import InstructionTooLongError, clean_instruction
from egomotion_ros.types import FPS, CameraPose, HumanMotion

#: Longest sentence (bytes of UTF-8); longer ones are left out.
MAX_TEXT = 240
#: A picture may come so long (s) after a sentence begins.
LATE = 0.5
#: Most sentences that are read of one file, and most recordings of one table.
MAX_ROWS = 100_000
_KEYS = {'motion', 'video', 'captions', 'starts', 'fps', 'calibration', 'mount', 'name'}
#: What the columns of a table of sentences are called: begin, end, words.
_COLUMNS = (('start', 'start_time', 'begin'), ('end', 'end_time'),
            ('text', 'caption', 'Describe my atomic actions'))


@dataclass(frozen=True)
class Mount:
    """
    How the camera sits on the head, in the axes of the head joint.

    ``up`` metres above the joint, ``pitch`` rad that it looks further down than the head,
    ``yaw`` rad that it looks further left.
    """

    up: float = 0.08
    pitch: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True)
class Sentence:
    """What is said of ``begin`` to ``end`` (s on the video's clock)."""

    begin: float
    end: float
    text: str


@dataclass(frozen=True)
class Recorded:
    """
    One recording, opened.

    ``motion`` at 30 fps on the floor, its first frame ``starts`` seconds after the video's first
    picture; ``calibration`` of the pictures that ``video`` gives.
    """

    name: str
    motion: HumanMotion
    starts: float
    video: Source
    calibration: Calibration
    sentences: tuple[Sentence, ...]
    mount: Mount = Mount()


@dataclass(frozen=True)
class Listed:
    """A recording that is known by ``name`` and opened when it is its turn (``open``)."""

    name: str
    open: Callable[[], Recorded]


@dataclass(frozen=True)
class Sample:
    """
    One episode: ``image`` (128, 128, 3) uint8 canonical picture, ``camera`` there, ``text``.

    ``features`` (152, 140) of the motion from there on, ``goal`` (3,) its last pelvis pose x, y,
    yaw, ``path`` (152, 2) of the pelvis, both in the start frame; ``begin`` s on the video.
    """

    image: np.ndarray
    camera: CameraPose
    text: str
    features: np.ndarray
    goal: np.ndarray
    path: np.ndarray
    begin: float


@dataclass
class Tally:
    """What became of the sentences of a recording: how many were used, why others were not."""

    name: str
    used: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave(self, why: str) -> None:
        """Count one that is left out."""
        self.left_out[why] = self.left_out.get(why, 0) + 1

    def line(self) -> str:
        """Give a line for the terminal."""
        rest = ''.join(f'; {count} left out: {why}' for why, count in self.left_out.items())
        return f'{self.name}: {self.used} episodes{rest}'


def read_table(path: str | Path, mappings: list[Mapping]) -> list[Listed]:
    """
    List the recordings of a YAML table; nothing of them is opened.

    Every entry has ``motion``, ``video`` and ``captions``, paths relative to the table, and may
    have ``starts`` (s on the video's clock at which the motion's file begins), ``fps`` (of the
    motion's file), ``calibration`` (YAML of ROS), ``mount`` and ``name``.  Raises ValueError for a
    table that cannot be read; opening an entry raises it for what is wrong there.
    """
    path = Path(path)
    try:
        rows = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f'{path}: not a table of recordings ({error})') from None
    if not isinstance(rows, list) or not rows or len(rows) > MAX_ROWS:
        raise ValueError(f'{path}: expected a list of recordings, each with motion, video and '
                         'captions')
    return [Listed(_name(row, number), partial(_entry, path, number, row, mappings))
            for number, row in enumerate(rows, 1)]


def _name(row: Any, number: int) -> str:
    """Name of an entry: its own, or that of the motion's file; without control characters."""
    row = row if isinstance(row, dict) else {}
    name = row.get('name')
    name = Path(str(row.get('motion', f'recording {number}'))).stem if name is None else str(name)
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in name).split())


def _entry(table: Path, number: int, row: Any, mappings: list[Mapping]) -> Recorded:
    try:
        return _opened(table.parent, _name(row, number), row, mappings)
    except (ValueError, OSError) as error:
        raise ValueError(f'{table.name}, recording {number}: {error}') from None


def _opened(folder: Path, name: str, row: Any, mappings: list[Mapping]) -> Recorded:
    if not isinstance(row, dict) or not {'motion', 'video', 'captions'} <= set(row):
        raise ValueError('motion, video and captions are needed')
    if unknown := sorted(map(str, set(row) - _KEYS)):
        raise ValueError(f'unknown key {unknown[0]!r}; there are {", ".join(sorted(_KEYS))}')
    starts = number_of(row.get('starts', 0.0), 'starts', -1e6, 1e6)
    fps = None if 'fps' not in row else number_of(row['fps'], 'fps', 1.0, 1000.0)
    mount = mount_of(row.get('mount', {}))
    sentences = read_sentences(folder / str(row['captions']))
    video = open_source(folder / str(row['video']))
    calibration = (load_calibration(folder / str(row['calibration'])) if 'calibration' in row
                   else video.calibration)
    if calibration is None:
        raise ValueError(f'{row["video"]} holds no calibration: name one (calibration: '
                         'camera.yaml, as ROS writes it)')
    motion = read_motion(folder / str(row['motion']), mappings, fps)
    return Recorded(name, motion, starts, video, calibration, sentences, mount)


def mount_of(value: Any) -> Mount:
    """Read a mount; ValueError for other keys than it has, or for what no head could carry."""
    if not isinstance(value, dict) or set(value) - {'up', 'pitch', 'yaw'}:
        raise ValueError(f'mount takes up, pitch and yaw, got {value!r:.80}')
    return Mount(number_of(value.get('up', Mount.up), 'mount.up', -0.5, 1.0),
                 number_of(value.get('pitch', 0.0), 'mount.pitch', -1.6, 1.6),
                 number_of(value.get('yaw', 0.0), 'mount.yaw', -1.6, 1.6))


def number_of(value: Any, name: str, least: float, most: float) -> float:
    """Read a number; ValueError unless it is one between ``least`` and ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) \
            or not least <= value <= most:
        raise ValueError(f'{name} must be a number from {least:g} to {most:g}, got {value!r:.40}')
    return float(value)


def read_motion(path: Path, mappings: list[Mapping], fps: float | None = None) -> HumanMotion:
    """
    Read the one motion of a file at 30 fps, its lowest foot contact on the floor.

    Nothing is cut off: its times are the file's.  ValueError for a broken file, or several.
    """
    found = list(read_recordings(path, mappings, fps))
    if len(found) != 1:
        raise ValueError(f'{path.name} holds {len(found)} motions, expected one')
    if isinstance(found[0].motion, ValueError):
        raise found[0].motion
    motion, _ = checks.mend_glitches(found[0].motion)
    checks.check_length(motion)
    return checks.set_floor(resample(motion, FPS))[0]


def read_sentences(path: Path, shift: float = 0.0) -> tuple[Sentence, ...]:
    """
    Read a CSV file with columns ``start``, ``end`` (s) and ``text``, as sentences by time.

    The columns of Nymeria's ``atomic_action.csv`` are known as well.  ``shift`` (s) is added to
    all times.  Raises ValueError for a file without these columns, or a time that is no number.
    """
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            names = [next((n for n in options if n in (reader.fieldnames or ())), None)
                     for options in _COLUMNS]
            if None in names:
                raise ValueError(f'{path.name}: expected columns start, end and text, got '
                                 f'{", ".join(reader.fieldnames or ())[:120]}')
            found = []
            for row in reader:
                if None in row:
                    raise ValueError(f'{path.name}, line {reader.line_num}: more columns than the '
                                     'header has; text with a comma stands in quotes')
                begin, end = (_seconds(row[name]) + shift for name in names[:2])
                if not (np.isfinite([begin, end]).all() and begin <= end):
                    raise ValueError(f'{path.name}, line {reader.line_num}: {row[names[0]]!r} to '
                                     f'{row[names[1]]!r} is no span of time')
                found.append(Sentence(begin, end, ' '.join((row[names[2]] or '').split())))
                if len(found) > MAX_ROWS:
                    raise ValueError(f'{path.name}: more than {MAX_ROWS} sentences')
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise ValueError(f'{path.name}: not a CSV file ({error})') from None
    except OSError as error:
        raise ValueError(f'{path}: cannot be read ({error})') from None
    return tuple(sorted(found, key=lambda item: item.begin))


def _seconds(text: str | None) -> float:
    try:
        return float(text or 'nan')
    except ValueError:
        return float('nan')


def samples(recorded: Recorded, tally: Tally, warn: Callable[[str], None] = lambda text: None
            ) -> Iterator[Sample]:
    """
    Give an episode for every sentence that has a picture and five seconds of sound motion.

    ``tally`` counts those that have not; ``warn`` hears of damaged pictures.  Raises ValueError
    for a video without pictures, or pictures that are not those of the calibration.
    """
    if recorded.motion.scale != 1.0 or recorded.motion.fps != FPS:
        raise ValueError(f'a motion of scale 1 at {FPS} fps is needed, not of '
                         f'{recorded.motion.scale:g} at {recorded.motion.fps:g}')
    rectify = None
    waiting = list(recorded.sentences)[::-1]
    for picture in recorded.video.frames(warn):
        time = picture.time / 1e9
        due = []
        while waiting and waiting[-1].begin <= time:
            due.append(waiting.pop())
        for sentence in due:
            why = _objection(recorded, sentence, time)
            if why:
                tally.leave(why)
                continue
            try:
                image = np.ascontiguousarray(picture.read())
            except ValueError as error:
                warn(str(error))
                tally.leave('its picture is damaged')
                continue
            if rectify is None or rectify.lens.height != len(image):
                rectify = _rectifier(recorded.calibration, *image.shape[:2])
            tally.used += 1
            yield _sample(recorded, sentence, time, rectify(image))
        if not waiting:
            return
    for _ in waiting:
        tally.leave('the video ends before it')


def _rectifier(calibration: Calibration, height: int, width: int) -> Rectifier:
    """Make pictures of a size canonical; ValueError where they cannot be the calibration's."""
    if abs(height * calibration.width / (width * calibration.height) - 1.0) > 0.01:
        raise ValueError(f'pictures of {width} x {height}, a calibration of '
                         f'{calibration.width} x {calibration.height}')
    lens = calibration.resized(width, height)
    bent = bool(np.any(lens.coefficients))
    return Rectifier(Lens(width, height, lens.matrix,
                          np.asarray(lens.coefficients) if bent else np.zeros(0),
                          lens.model if bent else ''), CAMERA)


def _objection(recorded: Recorded, sentence: Sentence, time: float) -> str:
    """Why a sentence that is to be seen at ``time`` makes no episode; empty where it does."""
    try:
        clean_instruction(sentence.text)
    except InstructionTooLongError:
        pass  # said below, in bytes
    except ValueError:
        return 'it says nothing'
    if len(sentence.text.encode()) > MAX_TEXT:
        return f'it is longer than {MAX_TEXT} bytes'
    if time - sentence.begin > LATE:
        return f'there is no picture within {LATE} s'
    first = round((time - recorded.starts) * FPS)
    if first < 0 or first + FRAMES > recorded.motion.frames:
        return 'the motion does not cover it'
    part = slice_frames(recorded.motion, first, first + FRAMES)
    try:
        jumps = bool(checks.cut_jumps(part)[1])
    except ValueError:
        jumps = True  # hardly a good frame
    return 'the motion jumps' if jumps else ''


def _sample(recorded: Recorded, sentence: Sentence, time: float, image: np.ndarray) -> Sample:
    first = round((time - recorded.starts) * FPS)
    motion, _ = canonicalize(slice_frames(recorded.motion, first, first + FRAMES))
    end = ground_pose(motion, FRAMES - 1)
    return Sample(image, worn_camera(motion, recorded.mount), sentence.text,
                  motion_to_features(motion), np.array([end.x, end.y, end.yaw]),
                  np.asarray(motion.root_position[:, :2]), time)


def worn_camera(motion: HumanMotion, mount: Mount, frame: int = 0) -> CameraPose:
    """Pose of a camera on the head at a frame of a motion, against the pelvis."""
    head = head_pose(motion, frame)
    return CameraPose(head.height + mount.up, head.pitch + mount.pitch,
                      float(wrap_angle(np.asarray(head.yaw + mount.yaw))))


def mount_from_pitches(motion: HumanMotion, starts: float, times: np.ndarray,
                       pitches: np.ndarray) -> Mount:
    """
    Find how far down a camera is tilted on the head from what it was seen to do.

    ``pitches`` (N,) rad, downwards, of the camera at ``times`` (N,) s on the video's clock; the
    median of what it looks further down than the head is taken.  ValueError where fewer than ten
    of the times lie in the motion.
    """
    frames = np.round((np.asarray(times) - starts) * motion.fps).astype(int)
    inside = (frames >= 0) & (frames < motion.frames)
    if inside.sum() < 10:
        raise ValueError(f'{int(inside.sum())} poses of the camera lie in the time of the motion')
    heads = [head_pose(motion, int(frame)).pitch for frame in frames[inside]]
    return Mount(pitch=float(np.median(np.asarray(pitches)[inside] - heads)))

