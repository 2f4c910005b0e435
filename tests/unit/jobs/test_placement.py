"""What a caller may choose of where a job runs."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.errors import InvalidRequest
from services.jobs.placement import ONE_MACHINE, Placement
from services.jobs.settings import JobSettings
from services.jobs.violations import Violations


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    for name in ("gpu", "cpu"):
        (tmp_path / f"{name}.yaml").touch()
    return tmp_path


def refused(placement: Placement, *, profile: str = "", num_nodes: int = 1) -> dict[str, str]:
    """Returns what is wrong, by field."""
    found = Violations()
    placement.check_profile(found, profile)
    placement.check_nodes(found, num_nodes)
    try:
        found.raise_any()
    except InvalidRequest as error:
        return {violation.field: violation.description for violation in error.violations}
    return {}


def test_one_machine_leaves_nothing_to_choose() -> None:
    assert refused(ONE_MACHINE) == {}
    assert set(refused(ONE_MACHINE, profile="gpu", num_nodes=2)) == {"spec.profile", "spec.num_nodes"}


def test_a_cluster_has_the_profiles_that_its_operator_wrote(templates: Path) -> None:
    placement = Placement(templates)
    assert refused(placement, profile="gpu", num_nodes=64) == {}
    assert refused(placement, profile="tpu") == {
        "spec.profile": "there is no profile 'tpu'; there is cpu, gpu"
    }
    (templates / "tpu.yaml").touch()
    assert refused(placement, profile="tpu") == {}


@pytest.mark.parametrize("profile", ["../gpu", "gpu.yaml", "*", "a/b", "\0"])
def test_a_profile_is_a_name_and_no_path(templates: Path, profile: str) -> None:
    assert set(refused(Placement(templates), profile=profile)) == {"spec.profile"}


@pytest.mark.parametrize("num_nodes", [0, 65])
def test_a_cluster_gives_1_to_64_machines(templates: Path, num_nodes: int) -> None:
    assert set(refused(Placement(templates), num_nodes=num_nodes)) == {"spec.num_nodes"}


def test_the_executor_decides_which_choice_there_is(templates: Path) -> None:
    cluster = JobSettings(executor="kubernetes", job_templates=templates)
    assert refused(Placement.of(cluster), profile="gpu") == {}
    assert set(refused(Placement.of(JobSettings(job_templates=templates)), profile="gpu")) == {"spec.profile"}


def test_a_cluster_without_templates_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="job_templates"):
        JobSettings(executor="kubernetes")
