# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated world behind ``simulation_node``: kinematic robot, rooms, cameras. No ROS."""
