# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Egocentric image + instruction -> whole-body humanoid motion (EgoMotion, arXiv 2604.19105)."""

import os

# The wheels of ONNX Runtime report sessions to their maker unless told not to, before they load.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

__version__ = '0.1.0'
