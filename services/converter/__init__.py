"""The converter: turns checkpoints into certified, published model versions."""
