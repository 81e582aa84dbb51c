"""MLflow: runs, artifacts, the model registry and the UI; the only package that imports mlflow, and only when used."""
