"""Everything that speaks with a Kubernetes API server."""
