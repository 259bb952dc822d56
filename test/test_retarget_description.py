# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Robot descriptions: what comes with the package, a robot of one's own, and refusals."""

from pathlib import Path
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import yaml

from egomotion_ros.retarget.description import ROBOTS, RobotDescription, resolve_model

sys.path.insert(0, str(Path(__file__).resolve().parent))
from retarget_motions import TOY_MJCF, TOY_YAML  # noqa: E402

SHIPPED = sorted(path.stem for path in ROBOTS.glob('*.yaml'))


@pytest.fixture
def toy(tmp_path):
    """Write the toy robot with changes to its YAML; gives the file."""

    def write(**changes):
        data = yaml.safe_load(TOY_YAML)
        for key, value in changes.items():
            if value is None:
                data.pop(key)
            else:
                data[key] = value
        (tmp_path / 'toy.xml').write_text(TOY_MJCF)
        (tmp_path / 'toy.yaml').write_text(yaml.safe_dump(data))
        return tmp_path / 'toy.yaml'

    return write


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_robots_stand_on_flat_feet(name):
    robot = RobotDescription.load(name)
    assert robot.name == name
    assert 0.4 < robot.scale < 1.2
    assert 0.3 < robot.home_height < 1.5
    model = robot.kinematics
    data = mujoco.MjData(model)
    qpos = np.zeros(model.nq)
    qpos[2], qpos[3] = robot.home_height, 1.0
    qpos[robot.qpos_indices(model)] = robot.standing
    data.qpos = qpos
    mujoco.mj_kinematics(model, data)
    for foot in robot.feet:
        body = data.body(foot.body)
        corners = body.xpos + foot.points @ body.xmat.reshape(3, 3).T
        assert np.abs(corners[:, 2]).max() < 0.015
        assert corners[2:, 0].min() > corners[:2, 0].max(), 'toes are in front of heels'
    assert model.nv == 6 + len(robot.joint_names)
    assert (robot.working_range[:, 0] >= robot.limits.lower).all()
    assert (robot.working_range[:, 1] <= robot.limits.upper).all()


@pytest.mark.parametrize('name', SHIPPED)
def test_camera_is_at_the_head_and_looks_forward_and_down(name):
    robot = RobotDescription.load(name)
    model = robot.kinematics
    data = mujoco.MjData(model)
    qpos = np.zeros(model.nq)
    qpos[2], qpos[3] = robot.home_height, 1.0
    qpos[robot.qpos_indices(model)] = robot.standing
    data.qpos = qpos
    mujoco.mj_kinematics(model, data)
    body = data.body(robot.camera.body)
    eye = body.xpos + body.xmat.reshape(3, 3) @ robot.camera.position
    assert eye[2] > 1.4 * robot.home_height
    pitch = robot.camera.rpy[1]
    axis = body.xmat.reshape(3, 3) @ [np.cos(pitch), 0.0, -np.sin(pitch)]
    assert axis[0] > 0.5
    assert axis[2] < 0.0
    assert 0.5 < robot.camera.hfov < 2.5


def test_loading_a_robot_does_not_import_the_packages_its_model_comes_from():
    code = (
        'import sys; from egomotion_ros.retarget.description import RobotDescription; '
        "[RobotDescription.load(n) for n in ('unitree_g1', 'booster_t1')]; "
        "assert not {'mjlab', 'holosoma_retargeting', 'torch', 'rclpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_full_model_of_the_t1_has_a_free_base_and_its_meshes():
    robot = RobotDescription.load('booster_t1')
    model = robot.spec().compile()
    assert model.nmesh > 10
    assert model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    assert model.body(1).name == robot.base_link


def test_urdf_gives_the_velocity_limits():
    limits = RobotDescription.load('booster_t1').limits
    assert limits.velocity[limits.joint_names.index('AAHead_yaw')] == pytest.approx(12.56)


def test_own_robot_from_a_yaml_and_a_model_beside_it(toy):
    robot = RobotDescription.load(toy())
    assert robot.scale == pytest.approx(0.4 / 0.85)
    assert robot.model_path.name == 'toy.xml'
    assert robot.limits.velocity.tolist() == [12.0] * 12
    moved = robot.model_path.rename(robot.model_path.with_name('elsewhere.xml'))
    with pytest.raises(ValueError, match='no such file'):
        RobotDescription.load(moved.with_name('toy.yaml'))
    again = RobotDescription.load(moved.with_name('toy.yaml'), model=str(moved))
    assert again.model_path == moved


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'surprise': 1}, 'unknown keys: surprise'),
        ({'links': None}, 'missing keys: links'),
        ({'base_link': 'pelvis'}, "base_link: expected 'pelvis'"),
        ({'joints': ['left_knee']}, 'in the model but not listed'),
        ({'joints': 'left_knee'}, 'joints: expected a list'),
        ({'standing': {'nose': 1.0}}, "standing: 'nose' matches no joint"),
        ({'standing': {'.*_knee': 9.0}}, 'standing: outside the limits'),
        ({'standing': {'.*_knee': 0.4}}, 'soles are not flat'),
        ({'standing': {'[': 0.4}}, 'toy.yaml'),
        ({'velocity_limits': {'left.*': 1.0}}, 'nothing for joint'),
        ({'velocity_limits': {'.*': 'fast'}}, 'expected a finite number'),
        ({'velocity_limits': {'.*': 0.0}}, 'must be > 0'),
        ({'acceleration_limits': [3]}, 'acceleration_limits: expected a mapping'),
        ({'links': {'tail': {'body': 'trunk', 'position': 1.0}}}, 'no SMPL-X joint'),
        ({'links': {'pelvis': {'body': 'trunk', 'position': 1.0}}}, 'left_ankle needs'),
        ({'links': {'pelvis': {'body': 'tail', 'position': 1.0}}}, "no body 'tail'"),
        ({'links': {'pelvis': {'body': 'trunk', 'position': -1.0}}}, 'weights >= 0'),
        ({'feet': {'left': {'body': 'left_foot', 'heel': [[0, 0]]}}}, 'expected two points'),
        ({'feet': []}, 'feet: expected a mapping'),
        ({'scale': 40.0}, 'scale: expected 0.05 to 5'),
        ({'scale': float('nan')}, 'scale: expected a finite'),
        ({'working_range': {'.*_knee': [3.0, 4.0]}}, 'working_range'),
        ({'working_range': {'nose': [3.0, 4.0]}}, 'working_range'),
        ({'clearances': ['trunk']}, 'clearances: expected pairs'),
        ({'root_limits': {'linear_velocity': -1.0}}, 'root linear_velocity'),
        ({'root_limits': {'warp': 9.0}}, 'root_limits'),
        ({'camera': {'body': 'trunk', 'position': [0, 0], 'rpy': [0, 0, 0], 'hfov': 1}}, 'camera'),
        ({'camera': 'yes'}, 'camera'),
        ({'model': 'package://no_such_package/a.xml'}, 'no_such_package'),
        ({'model': 'package://mujoco/../../etc/passwd'}, 'leads out of its package'),
        ({'model': 'missing.xml'}, 'no such file'),
    ],
)
def test_mistakes_in_a_description_are_named(toy, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        RobotDescription.load(toy(**changes))
    assert 'toy.yaml' in str(error.value)


def test_unknown_robots_and_files_that_are_no_yaml_are_refused(tmp_path):
    with pytest.raises(ValueError, match='booster_t1, unitree_g1'):
        RobotDescription.load('marvin')
    with pytest.raises(ValueError, match='no such file'):
        RobotDescription.load(tmp_path / 'none.yaml')
    (tmp_path / 'bad.yaml').write_text('a: [')
    with pytest.raises(ValueError, match='not a YAML file'):
        RobotDescription.load(tmp_path / 'bad.yaml')
    (tmp_path / 'bytes.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='not a YAML file'):
        RobotDescription.load(tmp_path / 'bytes.yaml')
    (tmp_path / 'list.yaml').write_text('- 1')
    with pytest.raises(ValueError, match='expected a mapping'):
        RobotDescription.load(tmp_path / 'list.yaml')


def test_broken_models_are_refused(toy):
    path = toy()
    path.with_name('toy.xml').write_text('<mujoco><worldbody><body></mujoco>')
    with pytest.raises(ValueError, match='model'):
        RobotDescription.load(path)
    path.with_name('toy.urdf').write_text('<robot name="a"><link name="b"/></robot>')
    with pytest.raises(ValueError, match="no link 'trunk'"):
        RobotDescription.load(path, model='toy.urdf')


def test_model_paths_are_found_without_importing():
    path = resolve_model('package://mujoco/__init__.py', Path('.'))
    assert path.name == '__init__.py'
