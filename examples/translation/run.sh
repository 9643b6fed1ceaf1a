#!/usr/bin/env bash
# English to German: fine-tune on parallel sentences, translate a letter.
#
#   run.sh [OUTPUT] [--quick]      MODEL=… names the ELECTRA to start from
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/example-translation}
model=${MODEL:-google/electra-small-discriminator}
few=(--epochs 20)
[[ ${2:-} == --quick ]] && few=(--max-steps 4 --batch-size 8 --precision fp32 --threads 1 --max-length 40)

python3 "$here/make_data.py" "$out/data"

electra-fast finetune translation --model "$model" --train "$out/data/train.en,$out/data/train.de" \
    --dev "$out/data/dev.en,$out/data/dev.de" --target-vocab-size 600 --output "$out/model" "${few[@]}"

electra-fast predict "$out/model" --input "$out/data/letter.txt" --output "$out/letter.jsonl" --with-input

# leaves: model/best/model.safetensors model/best/target_tokenizer/tokenizer.json letter.jsonl
