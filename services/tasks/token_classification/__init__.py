"""token-classification: typed spans of a text."""
