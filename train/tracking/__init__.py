"""MLflow: runs, the model registry, champion and challenger."""
