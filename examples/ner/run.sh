#!/usr/bin/env bash
# Names in text: fine-tune on tagged sentences, find the names of a letter.
#
#   run.sh [OUTPUT] [--quick]      MODEL=… names the ELECTRA to start from
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/example-ner}
model=${MODEL:-google/electra-small-discriminator}
few=()
[[ ${2:-} == --quick ]] && few=(--max-steps 4 --batch-size 8 --precision fp32 --threads 1)

python3 "$here/make_data.py" "$out/data"

electra-fast finetune ner --model "$model" --train "$out/data/train.conll" --dev "$out/data/dev.conll" \
    --output "$out/model" "${few[@]}"

electra-fast predict "$out/model" --input "$out/data/letter.txt" --output "$out/letter.jsonl" --with-input
electra-fast predict "$out/model" --input "$out/data/dev.conll" --output "$out/dev.jsonl"

# leaves: model/best/model.safetensors letter.jsonl dev.jsonl
