#!/usr/bin/env bash
# Opinions to labels: fine-tune, evaluate, predict, and learn more from text without labels.
#
#   run.sh [OUTPUT] [--quick]      MODEL=… names the ELECTRA to start from
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/example-sentiment}
model=${MODEL:-google/electra-small-discriminator}
few=()
[[ ${2:-} == --quick ]] && few=(--max-steps 4 --batch-size 8 --precision fp32 --threads 1)

python3 "$here/make_data.py" "$out/data"

electra-fast finetune classification --model "$model" --train "$out/data/train.tsv" --dev "$out/data/dev.tsv" \
    --test "$out/data/test.tsv" --output "$out/model" "${few[@]}"

electra-fast evaluate "$out/model" --data "$out/data/test.tsv" --output "$out/evaluation"

head -n 4 "$out/data/unlabelled.txt" | electra-fast predict "$out/model/best" > "$out/predictions.jsonl"

electra-fast selftrain classification --model "$model" --train "$out/data/train.tsv" --dev "$out/data/dev.tsv" \
    --unlabelled "$out/data/unlabelled.txt" --confidence 0.9 --rounds 2 --output "$out/selftrained" "${few[@]}"

# leaves: model/best/model.safetensors evaluation/report.html predictions.jsonl selftrained/best/model.safetensors
