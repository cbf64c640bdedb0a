"""What people write first: Flask, and transformers in PyTorch, one message at a time."""

import argparse

import torch
from flask import Flask, jsonify, request
from transformers import AutoModel, AutoTokenizer


def main() -> None:
    options = _parser().parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model).eval()
    head = torch.linspace(-1, 1, model.config.hidden_size)  # in place of a classifier, and cheaper
    app = Flask("flask_transformers")

    def score(text: str) -> float:
        with torch.inference_mode():
            inputs = tokenizer(
                options.prefix + text,
                truncation=True,
                max_length=options.max_tokens,
                return_tensors="pt",
            )
            embedding = model(**inputs).last_hidden_state[0].mean(0)
            embedding = torch.nn.functional.normalize(embedding, dim=0)
            return torch.sigmoid(embedding @ head).item()

    @app.post("/score")
    def answer():
        return jsonify([{"score": score(text)} for text in request.json["texts"]])

    @app.get("/readyz")
    def ready():
        return ""

    app.run(host="127.0.0.1", port=options.port, threaded=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser


if __name__ == "__main__":
    main()
