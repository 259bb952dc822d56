# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What ``egomotion demo`` is made of: processes, script, recorder, scores, pictures."""
