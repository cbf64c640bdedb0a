"""What people write next: FastAPI, and onnxruntime in 32-bit floats, without batching."""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer


class ScoreRequest(BaseModel):
    texts: list[str]


def main() -> None:
    options = _parser().parse_args()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.enable_truncation(options.max_tokens)
    session = onnxruntime.InferenceSession(
        str(options.model / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    app = FastAPI()

    def score(text: str) -> float:
        ids = np.array([tokenizer.encode(options.prefix + text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        [embedding] = session.run(["embedding"], inputs)[0]
        head = np.linspace(-1, 1, embedding.size)  # in place of a classifier, and cheaper
        return float(1 / (1 + np.exp(-embedding @ head)))

    @app.post("/score")
    def answer(wanted: ScoreRequest) -> list[dict[str, float]]:
        return [{"score": score(text)} for text in wanted.texts]

    @app.get("/readyz")
    def ready() -> None:
        return None

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="info")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser


if __name__ == "__main__":
    main()
