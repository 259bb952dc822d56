# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0

.PHONY: build

build:
	@scripts/build
