#!/usr/bin/env bash
# Questions about texts: fine-tune on SQuAD's form, with questions that have no answer, and ask two more.
#
#   run.sh [OUTPUT] [--quick]      MODEL=… names the ELECTRA to start from
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/example-qa}
model=${MODEL:-google/electra-small-discriminator}
few=(--epochs 5)
[[ ${2:-} == --quick ]] && few=(--max-steps 4 --batch-size 8 --precision fp32 --threads 1)

python3 "$here/make_data.py" "$out/data"

electra-fast finetune qa --model "$model" --train "$out/data/train.json" --dev "$out/data/dev.json" \
    --output "$out/model" "${few[@]}"

electra-fast predict "$out/model" --input "$out/data/questions.jsonl" --output "$out/answers.jsonl" --with-input

# leaves: model/best/model.safetensors answers.jsonl
