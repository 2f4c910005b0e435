"""The Triton model repository: publish a version, read it, check its certificate, stage what is routed."""
