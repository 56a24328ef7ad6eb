"""The rim: Prefect, MLflow, processes and clocks around a campaign."""
