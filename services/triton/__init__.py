"""A real tritonserver in an environment of its own, two backends for it, and its launcher."""
