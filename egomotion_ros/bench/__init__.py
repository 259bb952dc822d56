# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measuring: time, memory, arithmetic, scaling and the cost of other designs; no torch needed."""
