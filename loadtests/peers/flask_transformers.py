"""Flask and transformers, one message at a time: MODEL_FOLDER PREFIX MAX_TOKENS PORT."""

import sys

import torch
from flask import Flask, jsonify, request
from transformers import AutoModel, AutoTokenizer

folder, prefix, max_tokens, port = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()
head = torch.linspace(-1, 1, model.config.hidden_size)  # cheaper than a classifier
limits = {"truncation": True, "max_length": int(max_tokens)}
app = Flask("flask_transformers")


def score_text(text: str) -> float:
    with torch.inference_mode():
        inputs = tokenizer(prefix + text, return_tensors="pt", **limits)
        embedding = model(**inputs).last_hidden_state[0].mean(0)
        embedding = torch.nn.functional.normalize(embedding, dim=0)
        return torch.sigmoid(embedding @ head).item()


@app.post("/score")
def score():
    return jsonify([{"score": score_text(text)} for text in request.json["texts"]])


@app.get("/readyz")
def ready():
    return ""


app.run(host="127.0.0.1", port=int(port), threaded=True)
