"""Text to score: encoder, features, classifier, cascade, explanations, and the model store."""
