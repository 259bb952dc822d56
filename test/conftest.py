# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files use."""

from fixtures_bundle import tiny_bundle

__all__ = ['tiny_bundle']
