"""A rollout by the rendered chart over real Tritons and real gateways: nobody who calls notices anything.

The cluster is processes of this machine and an emulated API server: see tests/rehearsal.
"""

from pathlib import Path

import pytest

from tests.rehearsal.story import Step, installed, rehearse


# About a minute of staging, starting and draining on two idle cores.
@pytest.mark.timeout(600)
async def test_versions_come_and_go_by_changed_values_without_a_failed_call(tmp_path: Path) -> None:
    async with installed(tmp_path) as cluster:
        steps = {step.name: step async for step in rehearse(cluster)}
    assert {name: step.tally.failures for name, step in steps.items() if step.tally.failures} == {}
    _check_shifts(steps)
    _check_bad_versions(steps)
    _check_twin(steps["a plan for another GPU"])


def _check_shifts(steps: dict[str, Step]) -> None:
    canary, swap = steps["canary: 1 -> 1 and 2"], steps["2 in the place of 1"]
    assert canary.pods_started == swap.pods_started == 2
    assert set(canary.tally.versions) == set(swap.tally.versions) == {"sentiment@1", "sentiment@2"}
    staged = [steps["all to 2, both are staged"], steps["rollback to 1, both are staged"]]
    assert [step.pods_started for step in staged] == [0, 0]
    assert all(step.seconds is not None for step in staged)


def _check_bad_versions(steps: dict[str, Step]) -> None:
    wrong, uncertified = steps["3 answers wrong"], steps["4 has no certificate"]
    assert set(wrong.tally.versions) == set(uncertified.tally.versions) == {"sentiment@2"}
    assert "max_abs_logit_difference" in wrong.said
    assert "sentiment@4 has no certificate" in uncertified.said


def _check_twin(step: Step) -> None:
    assert set(step.tally.runtimes) == {"sentiment onnxruntime", "topic onnxruntime"}
    assert "its plans are for 9.0" in step.said
    assert step.fallback == 1
