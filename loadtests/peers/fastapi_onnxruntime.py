"""FastAPI and onnxruntime in fp32, without batching: MODEL_FOLDER PREFIX MAX_TOKENS PORT."""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from tokenizers import Tokenizer

folder, prefix, max_tokens, port = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.enable_truncation(int(max_tokens))
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
app = FastAPI()


def score_text(text: str) -> float:
    ids = np.array([tokenizer.encode(prefix + text).ids])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    [embedding] = session.run(["embedding"], inputs)[0]
    head = np.linspace(-1, 1, embedding.size)  # cheaper than a classifier
    return float(1 / (1 + np.exp(-embedding @ head)))


@app.post("/score")
def score(body: dict[str, list[str]]) -> list[dict[str, float]]:
    return [{"score": score_text(text)} for text in body["texts"]]


@app.get("/readyz")
def ready() -> None:
    return None


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="info")
