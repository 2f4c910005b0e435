"""What a caller may choose of where a job runs, and refuses what is not there.

Knows the names of the cluster's profiles; knows nothing about what stands in them.
"""

from pathlib import Path

from services.jobs.settings import JobSettings
from services.jobs.violations import Violations

_MOST_NODES = 64


class Placement:
    """The choices of one service: none on one machine, the operator's profiles in a cluster."""

    def __init__(self, templates: Path | None) -> None:
        """`templates` holds the profiles, `<profile>.yaml` each; None on one machine."""
        self._templates = templates

    @classmethod
    def of(cls, settings: JobSettings) -> "Placement":
        """Returns what the settings allow."""
        return cls(settings.job_templates if settings.executor == "kubernetes" else None)

    def check_profile(self, found: Violations, profile: str) -> None:
        """Notes a profile that there is none of. Files are looked at anew: an operator may add one."""
        if not profile:
            return
        if self._templates is None:
            found.add("spec.profile", "must be empty: jobs run on the service's own machine")
        elif profile not in (known := sorted(path.stem for path in self._templates.glob("*.yaml"))):
            found.add("spec.profile", f"there is no profile {profile!r}; there is {', '.join(known)}")

    def check_nodes(self, found: Violations, num_nodes: int) -> None:
        """Notes a number of machines that nobody can give."""
        if self._templates is not None:
            found.within("spec.num_nodes", num_nodes, 1, _MOST_NODES)
        elif num_nodes > 1:
            found.add("spec.num_nodes", "must be 1: jobs run on the service's own machine")


ONE_MACHINE = Placement(None)
"""Nothing to choose."""
