"""Splits and samples of examples: stratified, seeded, and without a text on both sides.

Knows texts and strata; knows nothing about files or labels. Equal seeds give equal splits.
"""

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from conch.v1 import job_pb2
from services.errors import InvalidRequest, Violation
from services.tasks import Example, Task
from services.tasks.reading import VALIDATION, rows_shown

Key = tuple[str, str]
_SHOWN = 5


def normalised(example: Example) -> Key:
    """Returns what two examples share if a model would call them the same text: Unicode form, case and
    white space are ignored."""
    return (_normalised(example.text), _normalised(example.text_pair))


def find_leaks(train: Sequence[Example], validation: Sequence[Example]) -> list[Violation]:
    """Returns a violation if a text stands in both splits, with its rows in both."""
    if not validation:
        return []
    rows = {normalised(example): example.row for example in reversed(train)}
    leaks = [(rows[key], e.row) for e in validation if (key := normalised(e)) in rows]
    if not leaks:
        return []
    shown = ", ".join(f"row {mine} = training row {theirs}" for theirs, mine in leaks[:_SHOWN])
    more = f", ... ({len(leaks)} in all)" if len(leaks) > _SHOWN else ""
    return [Violation(VALIDATION, f"texts that the training split holds too: {shown}{more}")]


def find_duplicates(train: Sequence[Example]) -> list[job_pb2.Warning]:
    """Returns warnings about texts that the training split holds more than once."""
    groups = [group for group in _groups(train).values() if len(group) > 1]
    warnings = []
    if extra := sum(len(group) - 1 for group in groups):
        rows = [e.row for e in groups[0]]
        message = f"{extra} training examples repeat an earlier text, such as {rows_shown(rows)}"
        warnings.append(job_pb2.Warning(reason="DUPLICATE_TEXTS", message=message))
    conflicts = [group for group in groups if any(e.target != group[0].target for e in group)]
    if conflicts:
        rows = [e.row for e in conflicts[0]]
        message = f"{len(conflicts)} training texts bear different labels, such as {rows_shown(rows)}"
        warnings.append(job_pb2.Warning(reason="CONFLICTING_LABELS", message=message))
    return warnings


def cut_validation(
    examples: Sequence[Example], task: Task, *, fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Returns (train, validation): about `fraction` of each stratum, in the order of the file.

    All examples of one text land on one side. Raises InvalidRequest if a stratum has a single text:
    it cannot stand on both sides.
    """
    strata = _grouped_strata(examples, task)
    if single := [groups[0] for groups in strata.values() if len(groups) == 1]:
        raise InvalidRequest.field(VALIDATION, _too_few(single, task), reason="TOO_FEW_EXAMPLES")
    chosen: set[int] = set()
    for stratum, groups in sorted(strata.items()):
        wanted = max(1, round(fraction * sum(map(len, groups))))
        chosen.update(id(e) for e in _take(groups, wanted, random.Random(f"{seed} {stratum}")))
    train = [e for e in examples if id(e) not in chosen]
    return train, [e for e in examples if id(e) in chosen]


def sample(examples: Sequence[Example], task: Task, *, size: int, seed: int, field: str) -> list[Example]:
    """Returns `size` examples (all if 0 or too few), each stratum in proportion and with one at least.

    Raises InvalidRequest naming `field` if there are more strata than `size`.
    """
    if not size or size >= len(examples):
        return list(examples)
    strata = defaultdict(list)
    for example, stratum in zip(examples, task.strata(examples), strict=True):
        strata[stratum].append(example)
    if len(strata) > size:
        raise InvalidRequest.field(field, f"{size} examples cannot hold all of {len(strata)} labels")
    chosen: set[int] = set()
    for stratum, share in allocate({s: len(found) for s, found in strata.items()}, size).items():
        picked = random.Random(f"{seed} {stratum}").sample(strata[stratum], share)
        chosen.update(id(e) for e in picked)
    return [e for e in examples if id(e) in chosen]


def allocate(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Returns how many of `size` places each stratum gets: one at least, then by largest remainder.

    Needs len(counts) <= size <= sum(counts.values()).
    """
    total = sum(counts.values())
    shares = {stratum: max(1, size * count // total) for stratum, count in counts.items()}
    by_claim = sorted(counts, key=lambda s: (shares[s] - size * counts[s] / total, s))
    while (missing := size - sum(shares.values())) > 0:
        open_strata = [s for s in by_claim if shares[s] < counts[s]]
        for stratum in open_strata[:missing]:
            shares[stratum] += 1
    while sum(shares.values()) > size:
        # Those who were lifted to one took places from the others: the best served give them back.
        givers = [s for s in shares if shares[s] > 1]
        shares[max(givers, key=lambda s: (shares[s] - size * counts[s] / total, s))] -= 1
    return shares


def _groups(examples: Sequence[Example]) -> dict[Key, list[Example]]:
    groups: dict[Key, list[Example]] = defaultdict(list)
    for example in examples:
        groups[normalised(example)].append(example)
    return groups


def _grouped_strata(examples: Sequence[Example], task: Task) -> dict[str, list[list[Example]]]:
    stratum_of = {id(e): s for e, s in zip(examples, task.strata(examples), strict=True)}
    strata: dict[str, list[list[Example]]] = defaultdict(list)
    for group in _groups(examples).values():
        strata[stratum_of[id(group[0])]].append(group)
    return strata


def _take(groups: Sequence[list[Example]], wanted: int, rng: random.Random) -> list[Example]:
    # Never the last group: the training split needs one too. A group that is too large is passed over.
    shuffled = rng.sample(groups, len(groups))
    taken: list[Example] = []
    for group in shuffled[:-1]:
        if len(taken) + len(group) <= wanted:
            taken += group
    return taken or min(shuffled, key=len)


def _too_few(single: Sequence[list[Example]], task: Task) -> str:
    labels = Counter(task.strata([group[0] for group in single]))
    shown = ", ".join(
        f"{label!r} ({rows_shown([e.row for e in group])})"
        for label, group in zip(labels, single[:_SHOWN], strict=False)
    )
    return (
        f"cannot be cut from the training split: {len(single)} labels have a single text: {shown}; add "
        "examples, drop the label or give a validation split"
    )


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
