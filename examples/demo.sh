#!/bin/sh
# A complete sweep on drawn pedestrians: data, search, refit, export, test, registry. Run again, it continues.
set -eu
[ -d demo-data ] || reid-tune demo-data demo-data --identities 100
reid-tune sweep search_spaces/quickstart.yaml --resume auto
cat <<'NEXT'

Two repeats in confirm keep the demo short: they prove large gains only (docs/evaluation.md).
The winner is in MLflow as models:/reid-demo@champion.
Its ONNX file is runs/quickstart/export/winner.onnx.
View every trial:        .venv/bin/reid-tune ui
Show the leaderboard:    .venv/bin/reid-tune report quickstart
NEXT
