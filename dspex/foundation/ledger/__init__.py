"""The pure state machines that hold the cluster's registry; driven by the scheduler's plugin."""
