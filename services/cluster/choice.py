"""Chooses where a service's workers run: shared by trainer and converter.

Knows both places; the libraries that speak with a cluster are loaded only where there is one.
"""

from services.jobs.executor import Executor
from services.jobs.kinds import Kind
from services.jobs.local import LocalExecutor
from services.jobs.settings import JobSettings


def choose_executor(settings: JobSettings, kind: Kind, report_to: str) -> Executor:
    """Returns the executor that the settings name; a services.jobs.executor.MakeExecutor."""
    if settings.executor == "local":
        return LocalExecutor(settings, kind, report_to)
    from services.cluster.executor import kubernetes_executor

    return kubernetes_executor(settings, kind, report_to)
