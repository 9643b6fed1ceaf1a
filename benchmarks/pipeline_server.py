"""What one usually writes: FastAPI around a `transformers` pipeline. The peer of bench_serving.py.

    python benchmarks/pipeline_server.py MODEL --port 8001 --precision bf16

The endpoint is an ordinary function, which FastAPI runs in its pool of threads; torch has its default threads. A
request's texts are given to the pipeline as one batch.
"""

from __future__ import annotations

import argparse

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Request(BaseModel):
    inputs: str | list[str]


def application(model: str, precision: str) -> FastAPI:
    """The whole server."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    classify = pipeline("text-classification", model=model, device="cpu", dtype=dtype)
    app = FastAPI()

    @app.post("/predict")
    def predict(request: Request):
        texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
        return {"predictions": classify(texts, batch_size=len(texts), truncation=True)}

    @app.get("/ready")
    def ready():
        return {"status": "ready"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    uvicorn.run(application(given.model, given.precision), port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
