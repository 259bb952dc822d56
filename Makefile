# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# make demo    simulation + node, eight instructions in seven rooms; table, video and contact sheet in out/demo
#              CAMERA=path   a .vrs, a video, a folder of pictures or the URL of a live camera instead of the simulation
# make test    every test                              ARGS='-k stop test/test_node.py' selects
# make bench   times the shipped bundle; table, chart   ARGS='...' goes to `egomotion bench`
# make lint    ruff; what pre-commit runs
# make build   the messages and the Python package into install/ (demo and test call it)
# make clean   removes what build made; .venv stays
#
# PYTHON=python3.12 names the interpreter that .venv is made from (3.11 or 3.12).

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint build clean runtime-environment test-environment

ARGS ?=
CAMERA ?=
export PYTHON

help:
	@sed -n '4,/^$$/s/^# \{0,1\}//p' Makefile

demo: runtime-environment
	@scripts/build
	@scripts/env egomotion demo $(if $(CAMERA),--camera '$(CAMERA)') $(ARGS)

test: test-environment
	@scripts/build
	@scripts/env timeout --kill-after=30 45m pytest $(ARGS)

bench: test-environment
	@scripts/build
	@scripts/env egomotion bench --backend openvino onnxruntime $(ARGS)

lint: test-environment
	@.venv/bin/ruff check .

build:
	@[ -x .venv/bin/colcon ] || scripts/setup runtime
	@scripts/build

runtime-environment:
	@scripts/setup runtime

test-environment:
	@scripts/setup test

clean:
	rm -rf build install log
