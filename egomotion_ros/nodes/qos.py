# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Named QoS profiles: every topic of the package uses one of these, by name.

Which profile a topic uses is a parameter (``qos.<topic>``), so that a driver with other settings
can be met without a line of code.  ``docs/reference/topics.md`` lists the topics.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


#: Name -> profile.  A best-effort reader hears every writer; a reliable one only reliable ones.
PROFILES: dict[str, QoSProfile] = {
    # Cameras: the newest image only; a lost one is replaced by the next.
    'sensor': _profile(reliable=False, depth=1),
    # Images where every one counts (replay of a recording, lossy network).
    'sensor_reliable': _profile(reliable=True, depth=1),
    # Joint states, odometry: small and frequent.
    'state': _profile(reliable=False, depth=5),
    'state_reliable': _profile(reliable=True, depth=5),
    # What somebody says or commands once.
    'command': _profile(reliable=True, depth=1),
    # Plans: few, each counts.
    'motion': _profile(reliable=True, depth=5),
    # States: a late joiner gets the newest ones, a reader who follows gets all.
    'latched': _profile(reliable=True, depth=20, latched=True),
    # Diagnostics: what rqt and Foxglove expect.
    'default': _profile(reliable=True, depth=10),
}


def profile(name: str) -> QoSProfile:
    """Return the profile called ``name``; raises ValueError for an unknown one."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(
            f'QoS profile {name!r}: expected one of {", ".join(sorted(PROFILES))}'
        ) from None
