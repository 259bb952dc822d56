# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The beginning of a plan, executed while its rest is still being solved.

Rows of a plan depend on earlier rows only, so those that are solved can be sent, followed by a
stop.  Once all rows are there, the whole plan takes the place of its beginning: up to the row
where the stop would begin, both are the same within 1e-9 (rad, m and their rates), whether the
plan begins at rest or joins a running one.  If the rest never comes, the robot comes to rest.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from egomotion_ros.retarget.joining import decelerate, sample
from egomotion_ros.retarget.limits import JointLimits, RootLimits
from egomotion_ros.types import RobotMotion

#: Solved seconds after the row where the stop begins.  The stop has that much of the path to
#: follow; and where the plan is joined to another, by a spline through all its rows, what the
#: unsolved rows would change has faded by 2 - sqrt(3) = 0.27 a row, 17 times: by 2e-10.
MARGIN = 0.6


def stop_after(
    motion: RobotMotion, row: int, limits: JointLimits, root_limits: RootLimits
) -> RobotMotion:
    """
    Rows of ``motion`` up to ``row``, then a stop along its path (joining.py, ``decelerate``).

    Raises ValueError where the joints do not fit.
    """
    time = row * motion.step_dt
    stop = decelerate(motion, time, sample(motion, time), limits, root_limits).motion
    if np.dot(motion.root_quaternion[row], stop.root_quaternion[0]) < 0:
        stop = replace(stop, root_quaternion=-stop.root_quaternion)
    parts = {field.name: getattr(motion, field.name) for field in fields(motion)}
    return replace(motion, **{
        name: np.concatenate([part[: row + 1], getattr(stop, name)[1:]])
        for name, part in parts.items()
        if isinstance(part, np.ndarray)
    })
