"""The report of a training run and the model cards."""
