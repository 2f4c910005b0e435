"""Pages of jobs: every job once, whatever the page size and whatever is created meanwhile."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.v1 import job_pb2
from services.errors import InvalidRequest
from services.jobs import paging
from services.jobs.database import Database
from services.jobs.store import NewJob, Store

_PENDING, _CANCELLED = job_pb2.JobStatus.STATE_PENDING, job_pb2.JobStatus.STATE_CANCELLED


@given(
    cancelled=st.lists(st.booleans(), max_size=12),
    size=st.integers(1, 5),
    states=st.sampled_from([[], [_PENDING], [_CANCELLED], [_PENDING, _CANCELLED]]),
    created_meanwhile=st.integers(0, 2),
)
@settings(max_examples=25, deadline=None)
def test_pages_hold_every_job_once_newest_first(
    cancelled: list[bool], size: int, states: list[int], created_meanwhile: int
) -> None:
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        expected = [
            name
            for i, gone in enumerate(cancelled)
            if add(store, name := f"j{i}", cancelled=gone) in states or not states
        ]
        found: list[str] = []
        token = ""
        while True:
            before = paging.decode(token, "training", states)
            page = store.page("training", states=states, before=before, limit=size)
            found += [job.id for job in page]
            if len(page) < size:
                break
            token = paging.encode("training", states, page[-1].number)
            for i in range(created_meanwhile):
                add(store, f"new-{len(found)}-{i}", cancelled=False)
        assert found == expected[::-1]


def open_store(folder: Path) -> Store:
    database = Database(f"sqlite:///{folder / 'jobs.db'}")
    database.migrate()
    return Store(database)


def add(store: Store, name: str, *, cancelled: bool) -> int:
    store.create(NewJob(name, "training", b"", 1))
    if cancelled:
        return store.request_cancel("training", name).state
    return store.get("training", name).state


@given(st.text())
def test_a_token_that_is_not_ours_is_refused_by_name(token: str) -> None:
    if token:
        with pytest.raises(InvalidRequest) as caught:
            paging.decode(token, "training", [])
        assert caught.value.violations[0].field == "page_token"


@given(st.integers(1, 10**15), st.lists(st.sampled_from([1, 2, 3, 4, 5]), unique=True))
def test_a_token_comes_back_as_it_went_and_only_for_its_own_question(number: int, states: list[int]) -> None:
    token = paging.encode("training", states, number)
    assert paging.decode(token, "training", states) == number
    with pytest.raises(InvalidRequest):
        paging.decode(token, "conversion", states)
    with pytest.raises(InvalidRequest):
        paging.decode(token, "training", [*states, 9])


def test_an_unspecified_state_asks_for_all() -> None:
    assert paging.state_filter([_PENDING, job_pb2.JobStatus.STATE_UNSPECIFIED]) == []
    with pytest.raises(InvalidRequest):
        paging.state_filter([77])


def test_a_page_has_at_most_1000_jobs() -> None:
    assert (paging.page_size(0), paging.page_size(1000)) == (50, 1000)
    with pytest.raises(InvalidRequest):
        paging.page_size(1001)
