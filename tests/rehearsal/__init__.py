"""A rollout rehearsed without a cluster: `python -m tests.rehearsal`, or `make rehearse`."""
