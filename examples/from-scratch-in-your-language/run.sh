#!/usr/bin/env bash
# Raw text in a language of your own to an ELECTRA, to a model for a task, judged and exported.
#
#   run.sh [OUTPUT] [--quick]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/example-from-scratch}
stories=6000 pretraining=(--max-time 4m) finetuning=(--seeds 0,1,2) compare=yes
if [[ ${2:-} == --quick ]]; then
    stories=150 compare=no
    small=(--hidden-size 32 --embedding-size 16 --num-hidden-layers 2 --num-attention-heads 2 --intermediate-size 64)
    pretraining=("${small[@]}" --steps 4 --precision fp32 --threads 1 --no-tensorboard)
    finetuning=(--max-steps 4 --precision fp32 --threads 1)
fi

# Your own: put any number of text files there instead (a blank line between documents), and labelled tables.
python3 "$here/make_data.py" "$out/data" "$stories"

# --cased: German nouns are known by their capital letter. A real corpus wants --vocab-size 32000 and more.
electra-fast prepare --input "$out/data/text.txt" --output "$out/corpus" --cased --vocab-size 600 --max-length 64

electra-fast pretrain --data "$out/corpus" --output "$out/pretrained" --model small --num-hidden-layers 4 \
    --hidden-size 128 --intermediate-size 512 --batch-size 32 "${pretraining[@]}"

labelled=(--train "$out/data/train.tsv" --dev "$out/data/dev.tsv" --test "$out/data/test.tsv")
electra-fast finetune classification --model "$out/pretrained" "${labelled[@]}" --output "$out/model" "${finetuning[@]}"
if [[ $compare == yes ]]; then # the same network that has read nothing: what was the pretraining worth?
    electra-fast finetune classification --model "$out/pretrained" --from-scratch "${labelled[@]}" \
        --output "$out/untrained" "${finetuning[@]}"
fi

electra-fast evaluate "$out/model" --data "$out/data/test.tsv" --output "$out/evaluation"
electra-fast export "$out/model" --format onnx --output "$out/onnx"

# leaves: model/best/model.safetensors evaluation/report.html evaluation/results.json onnx/model.onnx
