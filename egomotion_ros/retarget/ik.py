# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One step of whole-body differential inverse kinematics: mink's problem, DAQP's solution.

``min_dq  |W (J dq - e)|^2 + regularisation`` subject to a box on every joint and on the base,
which holds position, velocity and acceleration limits at once (limits.py), and to the corners of
the soles staying above the floor.
"""

from __future__ import annotations

import daqp
import mink
import mujoco
import numpy as np

from egomotion_ros.retarget.description import RobotDescription

#: Weight of standing posture and of the last step in the directions no target speaks for.
POSTURE, SMOOTHNESS = 0.02, 0.05
#: DAQP's mark of a constraint that may give way (at a price) rather than make the step fail.
_SOFT = 8


class LinkTask(mink.Task):
    """
    All link poses as one mink task, so that a step costs one stack of Jacobians.

    Rows of position then of orientation, world frame, for links whose weight is not zero.
    """

    def __init__(self, model: mujoco.MjModel, description: RobotDescription) -> None:
        """Weights and bodies from the links of ``description``."""
        self.ids = np.array([model.body(link.body).id for link in description.links])
        position = np.array([link.position for link in description.links])
        orientation = np.array([link.orientation for link in description.links])
        self._place, self._turn = np.flatnonzero(position), np.flatnonzero(orientation)
        cost = np.concatenate([position[self._place], orientation[self._turn]])
        super().__init__(cost=np.repeat(cost, 3))
        self.jacobian = np.zeros((len(self.cost), model.nv))
        turn_row = {i: 3 * (len(self._place) + n) for n, i in enumerate(self._turn)}
        place_row = {i: 3 * n for n, i in enumerate(self._place)}
        self._blocks = [
            (
                int(body),
                self.jacobian[place_row[i] : place_row[i] + 3] if i in place_row else None,
                self.jacobian[turn_row[i] : turn_row[i] + 3] if i in turn_row else None,
            )
            for i, body in enumerate(self.ids)
        ]
        self._place_ids, self._turn_ids = self.ids[self._place], self.ids[self._turn]
        self._error = np.zeros(len(self.cost))
        self._target: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))

    def set_target(self, positions: np.ndarray, quaternions: np.ndarray) -> None:
        """Poses (L, 3) and wxyz quaternions (L, 4) the bodies shall reach."""
        self._target = positions[self._place], quaternions[self._turn]

    def compute_error(self, configuration: mink.Configuration) -> np.ndarray:
        """Pose now minus target: metres, and the rotation vector in the world frame."""
        data, split = configuration.data, 3 * len(self._place)
        self._error[:split] = (data.xpos[self._place_ids] - self._target[0]).ravel()
        # Rotation vector of q_now * conj(q_target), both wxyz.
        a, b = data.xquat[self._turn_ids], self._target[1]
        w = np.einsum('ni,ni->n', a, b)
        v = b[:, :1] * a[:, 1:] - a[:, :1] * b[:, 1:]
        v[:, 0] -= a[:, 2] * b[:, 3] - a[:, 3] * b[:, 2]
        v[:, 1] -= a[:, 3] * b[:, 1] - a[:, 1] * b[:, 3]
        v[:, 2] -= a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
        sine = np.sqrt(np.einsum('ni,ni->n', v, v))
        angle = 2.0 * np.arctan2(sine, np.abs(w)) * np.where(w < 0.0, -1.0, 1.0)
        self._error[split:] = (v * (angle / np.maximum(sine, 1e-12))[:, None]).ravel()
        return self._error

    def compute_jacobian(self, configuration: mink.Configuration) -> np.ndarray:
        """Jacobian (rows, nv) of the error; MuJoCo writes each link's rows in place."""
        model, data = configuration.model, configuration.data
        for body, place, turn in self._blocks:
            mujoco.mj_jacBody(model, data, place, turn, body)
        return self.jacobian


class Stepper:
    """Holds the model, the task and the solver, and takes one step after the other."""

    def __init__(self, description: RobotDescription) -> None:
        """Prepare for ``description``; nothing is allocated per step after this."""
        model = description.kinematics
        self.model = model
        self.configuration = mink.Configuration(model)
        self.task = LinkTask(model, description)
        self.dofs = description.dof_indices(model)
        self.places = description.qpos_indices(model)
        self._rest = description.standing
        self._corners = [
            (model.body(foot.body).id, point) for foot in description.feet for point in foot.points
        ]
        nv = model.nv
        self._floor = np.zeros((len(self._corners), nv))
        self._jac = np.zeros((3, nv))
        self._upper = np.full(nv + len(self._corners), 1e3)
        self._lower = np.full(nv + len(self._corners), -1e3)
        self._sense = np.zeros(len(self._upper), dtype=np.int32)
        self._sense[nv:] = _SOFT
        self._solver: daqp.Model | None = None

    @property
    def data(self) -> mujoco.MjData:
        """Kinematics at the present configuration."""
        return self.configuration.data

    def place(self, qpos: np.ndarray) -> None:
        """Go to the configuration ``qpos`` (nq,)."""
        self.configuration.update(qpos)

    def step(self, low: np.ndarray, high: np.ndarray, wish: np.ndarray) -> np.ndarray:
        """
        Go one step (nv,) towards the task's target within ``low`` <= step <= ``high``.

        ``wish`` (nv,) is the step the regularisation prefers.  Raises RuntimeError if the solver
        gives up, which a box that contains a step cannot cause.
        """
        configuration, nv = self.configuration, self.model.nv
        problem = mink.build_ik(configuration, [self.task], 1.0, 1e-6, limits=[])
        hessian, gradient = problem.P, problem.q
        diagonal = hessian.ravel()[:: nv + 1]
        diagonal += SMOOTHNESS**2
        gradient -= SMOOTHNESS**2 * wish
        diagonal[self.dofs] += POSTURE**2
        gradient[self.dofs] += POSTURE**2 * (self.data.qpos[self.places] - self._rest)
        self._set_floor()
        self._lower[:nv], self._upper[:nv] = low, high
        step = self._solve(hessian, gradient)
        qpos = self.data.qpos.copy()
        mujoco.mj_integratePos(self.model, qpos, step, 1.0)
        configuration.update(qpos)
        return step

    def _set_floor(self) -> None:
        """Rows ``height + J dq >= 0`` of every corner of the soles."""
        nv = self.model.nv
        for row, (body, point) in enumerate(self._corners):
            arm = self.data.xmat[body].reshape(3, 3) @ point
            where = self.data.xpos[body] + arm
            mujoco.mj_jac(self.model, self.data, self._jac, None, where, body)
            self._floor[row] = self._jac[2]
            self._lower[nv + row] = -where[2]

    def _solve(self, hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        if self._solver is None:
            self._solver = daqp.Model()
            self._solver.setup(
                hessian, gradient, self._floor, self._upper, self._lower, self._sense
            )
        else:
            self._solver.update(
                H=hessian, f=gradient, A=self._floor, bupper=self._upper, blower=self._lower
            )
        step, _, flag, _ = self._solver.solve()
        if flag < 1:
            raise RuntimeError(f'inverse kinematics: DAQP stopped with code {flag}')
        return np.clip(step, self._lower[: self.model.nv], self._upper[: self.model.nv])
