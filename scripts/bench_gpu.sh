#!/usr/bin/env bash
# Measure the service on a machine with an NVIDIA GPU, in less than eight minutes, and print tables.
#
#   TOPTHREE_WEIGHTS=resnet18.pth scripts/bench_gpu.sh FOLDER_OF_JPEGS [CONFIGURATION ...]
#
# A configuration is PRECISION, or PRECISION-gpu to decode on the GPU as well; the default is all of the table in
# docs/performance.md. The load comes from wrk if it is installed, else from several processes of the client of
# `topthree bench`, which takes more of the processors.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "There is no GPU here."
"$python" -c 'import os, torch; print("torch", torch.__version__, "processors", len(os.sched_getaffinity(0)))'
TOPTHREE_WORKERS="${TOPTHREE_WORKERS:-auto}" "$python" -m app plan 2>/dev/null || true
exec "$python" scripts/bench_gpu.py "$@"
