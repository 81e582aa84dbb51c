#!/bin/sh
# The whole way on drawn pedestrians: data, search, refit, export, test, registry. May be run again: it continues.
set -eu
[ -d demo-data ] || reid-tune demo-data demo-data --identities 100
reid-tune sweep search_spaces/quickstart.yaml --resume auto
cat <<'NEXT'

The winner is in MLflow as models:/reid-demo@champion. Look at every trial with:   .venv/bin/reid-tune ui
Its ONNX file is runs/quickstart/export/winner.onnx. The leaderboard again:         .venv/bin/reid-tune report quickstart
NEXT
