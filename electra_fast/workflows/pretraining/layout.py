"""What lies where in the directory of a run."""

CONFIG_NAME = "config.toml"  # every option, to repeat the run
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"

# Written at the end:
MODEL_NAME = "model"  # discriminator/ and generator/, two Hugging Face directories
CURVES_NAME = "curves.png"
SUMMARY_NAME = "summary.json"
REPORT_NAME = "report.html"
