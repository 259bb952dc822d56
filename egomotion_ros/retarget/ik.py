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
POSTURE, SMOOTHNESS = 0.05, 0.1
#: Added to the diagonal, so that a direction without any weight still has a solution.
DAMPING = 1e-6
#: Pairs of geoms nearer than this (m) are watched, and kept this far apart.
NEARBY, MARGIN = 0.1, 0.01
#: Share of what lies between them and MARGIN that they may close in a step (a velocity damper,
#: Faverjon and Tournassoud 1987): an arm as fast as a kick's needs that long to brake.
CLOSING = 0.2
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
        self._weighted = np.zeros_like(self.jacobian)
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
        self._row = 0
        self._places = np.zeros((1, len(self._place), 3))
        self._turns = np.zeros((1, len(self._turn), 4, 4))

    def set_targets(self, positions: np.ndarray, quaternions: np.ndarray) -> None:
        """Poses the bodies shall reach row by row: (T, L, 3) and wxyz quaternions (T, L, 4)."""
        self._row = 0
        self._places = positions[:, self._place]
        w, x, y, z = np.moveaxis(quaternions[:, self._turn], -1, 0)
        # Matrices that multiply a quaternion from the right by the conjugate of the target.
        rows = [[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]]
        self._turns = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    def select(self, row: int) -> None:
        """Make ``row`` of the targets the present one."""
        self._row = row

    def compute_error(self, configuration: mink.Configuration) -> np.ndarray:
        """Pose now minus target: metres, and the rotation vector in the world frame."""
        data, split = configuration.data, 3 * len(self._place)
        self._error[:split] = (data.xpos[self._place_ids] - self._places[self._row]).ravel()
        off = (self._turns[self._row] @ data.xquat[self._turn_ids, :, None])[..., 0]
        v, w = off[:, 1:], off[:, 0]
        sine = np.sqrt((v * v).sum(axis=1))
        angle = np.copysign(2.0, w) * np.arctan2(sine, np.abs(w))
        self._error[split:] = (v * (angle / np.maximum(sine, 1e-12))[:, None]).ravel()
        return self._error

    def compute_jacobian(self, configuration: mink.Configuration) -> np.ndarray:
        """Jacobian (rows, nv) of the error; MuJoCo writes each link's rows in place."""
        model, data = configuration.model, configuration.data
        for body, place, turn in self._blocks:
            mujoco.mj_jacBody(model, data, place, turn, body)
        return self.jacobian

    def objective(self, configuration: mink.Configuration) -> tuple[np.ndarray, np.ndarray]:
        """
        Hessian (nv, nv) and gradient (nv,) of half the weighted square of the error.

        What mink's ``build_ik`` makes of this one task, without its stacks and checks: a tenth
        less time for a motion.
        """
        error = self.cost * self.compute_error(configuration)
        np.multiply(self.cost[:, None], self.compute_jacobian(configuration), out=self._weighted)
        hessian = self._weighted.T @ self._weighted
        hessian.ravel()[:: len(hessian) + 1] += DAMPING
        return hessian, error @ self._weighted


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
        nv = model.nv
        self._feet = [(model.body(foot.body).id, foot.points) for foot in description.feet]
        self._pairs = _geom_pairs(model, description.clearances)
        self._jac, self._jac_turn = np.zeros((3, nv)), np.zeros((3, nv))
        self._jac_other, self._fromto = np.zeros((3, nv)), np.zeros((6, 1))
        rows = sum(len(points) for _, points in self._feet) + len(self._pairs)
        self._rows = np.zeros((rows, nv))
        self._upper = np.full(nv + rows, 1e3)
        self._lower = np.full(nv + rows, -1e3)
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

    def step(
        self, low: np.ndarray, high: np.ndarray, wish: np.ndarray, again: bool = False
    ) -> np.ndarray:
        """
        Go one step (nv,) towards the task's target within ``low`` <= step <= ``high``.

        ``wish`` (nv,) is the step the regularisation prefers.  ``again`` says that this refines
        the last step: floor and clearances are then carried on linearly.  Should the solver give
        up, the step is the slowest one in the box: the robot brakes, inside its limits.
        """
        configuration, nv = self.configuration, self.model.nv
        hessian, gradient = self.task.objective(configuration)
        diagonal = hessian.ravel()[:: nv + 1]
        diagonal += SMOOTHNESS**2
        gradient -= SMOOTHNESS**2 * wish
        diagonal[self.dofs] += POSTURE**2
        gradient[self.dofs] += POSTURE**2 * (self.data.qpos[self.places] - self._rest)
        if not again:
            self._set_floor()
        self._lower[:nv], self._upper[:nv] = low, high
        step = self._solve(hessian, gradient)
        self._lower[nv:] -= self._rows @ step
        qpos = self.data.qpos.copy()
        mujoco.mj_integratePos(self.model, qpos, step, 1.0)
        configuration.update(qpos)
        return step

    def _set_floor(self) -> None:
        """Rows ``height + J dq >= 0`` of every corner of the soles."""
        data, row = self.data, 0
        for body, points in self._feet:
            mujoco.mj_jacBody(self.model, data, self._jac, self._jac_turn, body)
            arms = points @ data.xmat[body].reshape(3, 3).T
            end = row + len(points)
            # z of J_v + J_w x arm.
            self._rows[row:end] = (
                self._jac[2] + arms[:, 1:2] * self._jac_turn[0] - arms[:, :1] * self._jac_turn[1]
            )
            self._lower[self.model.nv + row : self.model.nv + end] = (
                -data.xpos[body, 2] - arms[:, 2]
            )
            row = end
        self._set_clearances(row)

    def _set_clearances(self, row: int) -> None:
        """Rows ``distance + n J dq >= MARGIN`` of geom pairs that are near, from ``row`` on."""
        model, data = self.model, self.data
        for a, b in self._pairs:
            gap = mujoco.mj_geomDistance(model, data, a, b, NEARBY, self._fromto)
            if gap < NEARBY:
                ends = self._fromto[:, 0]
                mujoco.mj_jac(model, data, self._jac, None, ends[:3], model.geom_bodyid[a])
                mujoco.mj_jac(model, data, self._jac_other, None, ends[3:], model.geom_bodyid[b])
                way = (ends[3:] - ends[:3]) / (gap if abs(gap) > 1e-9 else 1e-9)
                self._rows[row] = way @ (self._jac_other - self._jac)
                # Out of a collision at a pace as well, not at once.
                self._lower[model.nv + row] = max(MARGIN - gap, -1.0) * CLOSING
            else:
                self._rows[row], self._lower[model.nv + row] = 0.0, -1e3
            row += 1

    def _solve(self, hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        if self._solver is None:
            self._solver = daqp.Model()
            self._solver.setup(
                hessian, gradient, self._rows, self._upper, self._lower, self._sense
            )
        else:
            self._solver.update(
                H=hessian, f=gradient, A=self._rows, bupper=self._upper, blower=self._lower
            )
        step, _, flag, _ = self._solver.solve()
        low, high = self._lower[: self.model.nv], self._upper[: self.model.nv]
        solved = flag >= 1 and np.isfinite(step).all()
        return np.clip(step if solved else 0.0, low, high)


def _geom_pairs(
    model: mujoco.MjModel, pairs: tuple[tuple[str, str], ...]
) -> list[tuple[int, int]]:
    """Every two colliding geoms of the pairs of bodies."""

    def geoms(body: str) -> list[int]:
        number = model.body(body).id
        mine = np.flatnonzero(model.geom_bodyid == number)
        return [int(g) for g in mine if model.geom_contype[g] or model.geom_conaffinity[g]]

    return [(a, b) for one, two in pairs for a in geoms(one) for b in geoms(two)]
