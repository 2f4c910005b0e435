"""`python -m tests.rehearsal`: a line a step, then a line that says whether callers noticed anything."""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tests.rehearsal.story import Step, Story, installed, rehearse

_GOAL_SECONDS = 1.0


async def main() -> int:
    """Rehearses in a folder that is removed; returns the exit status, 1 if a call failed."""
    story = Story()
    with tempfile.TemporaryDirectory(prefix="conch-rehearsal-") as folder:
        async with installed(Path(folder)) as cluster:
            print("rehearse installed: 2 gateways, 2 pods of pool cpu serve sentiment@1", flush=True)
            async for step in rehearse(cluster):
                story.steps.append(step)
                print(_line(step), flush=True)
    slowest = max(step.seconds for step in story.steps if step.seconds is not None)
    good = story.num_failed == 0 and slowest < _GOAL_SECONDS
    print(
        f"rehearse {'ok' if good else 'FAILED'} calls={story.num_calls} failed_calls={story.num_failed} "
        f"slowest_shift_seconds={slowest:.3f}"
    )
    return int(not good)


def _line(step: Step) -> str:
    versions = " ".join(f"{key}:{count}" for key, count in sorted(step.tally.versions.items()))
    shift = f" shift_seconds={step.seconds:.3f}" if step.seconds is not None else ""
    if step.seconds_after_pods is not None:
        shift += f" shift_seconds_after_pods={step.seconds_after_pods:.3f}"
    if step.fallback is not None:
        shift += f" conch_pool_fallback={step.fallback:.0f}"
    said = f"\n    said: {step.said}" if step.said else ""
    failures = "".join(f"\n    failed: {failure}" for failure in step.tally.failures[:3])
    return (
        f"rehearse {step.name}: calls={step.tally.num_calls} failed={len(step.tally.failures)}{shift} "
        f"slowest_call_seconds={step.tally.slowest_seconds:.3f} new_pods={step.pods_started} {versions}"
        f"{said}{failures}"
    )


if __name__ == "__main__":
    logging.disable()
    sys.exit(asyncio.run(main()))
