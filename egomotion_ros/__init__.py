# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Egocentric image + instruction -> whole-body humanoid motion (EgoMotion, arXiv 2604.19105)."""

__version__ = '0.1.0'
