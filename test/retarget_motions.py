# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Human motions made from formulas, and a toy robot, for the tests of retargeting."""

import numpy as np

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.body.skeleton import (
    BODY_TO_WORLD,
    FOOT_HEIGHTS,
    JOINT_INDEX,
    OFFSETS,
    SHANK,
    THIGH,
)
from egomotion_ros.types import HumanMotion


def turn(axis, angle):
    """Rotations (T, 3, 3) about a body axis by angles (T,)."""
    return axis_angle_to_matrix(np.asarray(angle)[:, None] * np.asarray(axis, dtype=float))


def standing(frames=60, scale=1.0):
    """A person at ease, arms down."""
    return walk(frames, speed=0.0, scale=scale)


def walk(frames=150, speed=1.0, step=0.55, scale=1.0, fps=30.0):
    """Walk along X: planted feet, swings 10 cm high, arms that swing; two-bone legs."""
    time = np.arange(frames) / fps
    height = 0.93
    root = np.stack([speed * time, np.zeros(frames), np.full(frames, height)], axis=1)
    rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
    rotations[:, 0] = BODY_TO_WORLD
    for side, sign, phase in (('left', 1.0, 0.0), ('right', -1.0, 0.5)):
        hip, knee = JOINT_INDEX[f'{side}_hip'], JOINT_INDEX[f'{side}_knee']
        ankle, arm = JOINT_INDEX[f'{side}_ankle'], JOINT_INDEX[f'{side}_shoulder']
        cycle = 2.0 * step / speed if speed > 0 else np.inf
        at = (time / cycle + phase) % 1.0 if speed > 0 else np.zeros(frames)
        swing = np.clip((at - 0.6) / 0.4, 0.0, 1.0)
        smooth = swing**2 * (3 - 2 * swing)
        # In stance the ankle stays where it was put down, 0.6 of a cycle under the hip.
        ahead = speed * cycle * (0.3 - at + smooth) if speed > 0 else np.zeros(frames)
        up = FOOT_HEIGHTS[0] + 0.1 * np.sin(np.pi * swing) ** 2
        down = root[:, 2] + OFFSETS[hip, 1] - up
        reach = np.minimum(np.hypot(ahead, down), 0.999 * (THIGH + SHANK))
        bend = np.pi - np.arccos((THIGH**2 + SHANK**2 - reach**2) / (2 * THIGH * SHANK))
        lean = np.arctan2(ahead, down)
        inner = np.arccos((THIGH**2 + reach**2 - SHANK**2) / (2 * THIGH * reach))
        # A thigh turned by a positive angle about X (left) points backwards.
        rotations[:, hip] = turn([1, 0, 0], -(lean + inner))
        rotations[:, knee] = turn([1, 0, 0], bend)
        rotations[:, ankle] = turn([1, 0, 0], lean + inner - bend)
        drop = turn([0, 0, 1], np.full(frames, -1.25 * sign))
        wave = 0.35 * np.sin(2 * np.pi * at) if speed > 0 else np.zeros(frames)
        rotations[:, arm] = turn([1, 0, 0], wave) @ drop
    contacts = detect_contacts(forward_kinematics(root, rotations), fps)
    return HumanMotion(root * scale, rotations, contacts, fps, 'odom', scale)


def wild(frames=60, seed=0, scale=1.0):
    """Poses no person takes, jumping every few frames: what a broken generator may say."""
    rng = np.random.default_rng(seed)
    knots = rng.normal(0.0, 1.2, (frames // 5 + 1, 22, 3))
    rotations = axis_angle_to_matrix(np.repeat(knots, 5, axis=0)[:frames])
    rotations[:, 0] = BODY_TO_WORLD @ rotations[:, 0]
    root = np.repeat(rng.normal([0, 0, 0.8], [1.0, 1.0, 0.5], (frames // 5 + 1, 3)), 5, axis=0)
    contacts = rng.integers(0, 2, (frames, 4)).astype(float)
    return HumanMotion(root[:frames] * scale, rotations, contacts, 30.0, 'odom', scale)


def _leg(side, sign):
    return f"""
    <body name="{side}_hip_pitch" pos="0 {sign * 0.08} -0.05">
     <inertial pos="0 0 0" mass="1" diaginertia=".01 .01 .01"/>
     <joint name="{side}_hip_pitch" axis="0 1 0" range="-1.8 1.2"/>
     <body name="{side}_hip_roll"><inertial pos="0 0 0" mass="1" diaginertia=".01 .01 .01"/>
      <joint name="{side}_hip_roll" axis="1 0 0" range="-0.8 0.8"/>
      <body name="{side}_thigh"><inertial pos="0 0 -.1" mass="1" diaginertia=".01 .01 .01"/>
       <joint name="{side}_hip_yaw" axis="0 0 1" range="-1 1"/>
       <body name="{side}_shin" pos="0 0 -0.2"><inertial pos="0 0 0" mass="1"
        diaginertia=".01 .01 .01"/><joint name="{side}_knee" axis="0 1 0" range="0 2.4"/>
        <body name="{side}_foot" pos="0 0 -0.2"><inertial pos="0 0 0" mass="1"
         diaginertia=".01 .01 .01"/>
         <joint name="{side}_ankle_pitch" axis="0 1 0" range="-1.2 0.8"/>
         <joint name="{side}_ankle_roll" axis="1 0 0" range="-0.5 0.5"/>
        </body></body></body></body></body>"""


#: A biped of our own, legs only, half a metre tall.
TOY_MJCF = f"""
<mujoco model="toy"><compiler angle="radian" autolimits="true"/><worldbody>
 <geom name="floor" type="plane" size="1 1 .1"/>
 <body name="trunk" pos="0 0 0.5"><inertial pos="0 0 0" mass="1" diaginertia=".01 .01 .01"/>
 {_leg('left', 1)}{_leg('right', -1)}
 </body></worldbody></mujoco>
"""

TOY_YAML = """
name: toy
model: toy.xml
base_link: trunk
joints: [left_hip_pitch, left_hip_roll, left_hip_yaw, left_knee, left_ankle_pitch,
  left_ankle_roll, right_hip_pitch, right_hip_roll, right_hip_yaw, right_knee,
  right_ankle_pitch, right_ankle_roll]
leg: {hip: left_hip_pitch, ankle: left_foot}
standing: {'.*_hip_pitch': -0.2, '.*_knee': 0.4, '.*_ankle_pitch': -0.2}
t_pose: {}
links:
  pelvis: {body: trunk, position: 25.0, orientation: 2.0}
  left_ankle: {body: left_foot, position: 30.0, orientation: 4.0}
  right_ankle: {body: right_foot, position: 30.0, orientation: 4.0}
feet:
  left: {body: left_foot, heel: [[-0.05, 0.02, -0.03], [-0.05, -0.02, -0.03]],
    toe: [[0.08, 0.02, -0.03], [0.08, -0.02, -0.03]]}
  right: {body: right_foot, heel: [[-0.05, 0.02, -0.03], [-0.05, -0.02, -0.03]],
    toe: [[0.08, 0.02, -0.03], [0.08, -0.02, -0.03]]}
velocity_limits: {'.*': 12.0}
acceleration_limits: {'.*': 150.0}
working_range: {'.*_knee': [0.12, 2.3]}
camera: {body: trunk, position: [0.05, 0, 0.2], rpy: [0, 0.3, 0], hfov: 1.2}
"""
