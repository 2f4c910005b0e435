"""The jobs store over both databases, for real."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from conch.v1 import job_pb2, training_pb2, worker_pb2
from services.errors import AlreadyExists, BackendUnavailable, NotFound, NotReady, Unauthenticated
from services.jobs.credentials import Caller
from services.jobs.database import Database
from services.jobs.outcomes import Death
from services.jobs.store import NewJob, Store
from services.jobs.tables import Base
from services.jobs.term import Term, TermOver
from tests.contract.jobs.running import ROOT
from tests.integration.postgres import PASSWORD, Postgres

_S = job_pb2.JobStatus


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def term(database: Database) -> Term:
    return Term.begin(database, "training")


def new(job_id: str, **fields: Any) -> NewJob:
    return NewJob(**{"id": job_id, "kind": "training", "spec": b"spec", "max_attempts": 2, **fields})


def report(worker_sequence: int, message: str = "") -> worker_pb2.WorkerReport:
    event = job_pb2.JobEvent(warning=job_pb2.Warning(reason="R", message=message or str(worker_sequence)))
    return worker_pb2.WorkerReport(worker_sequence=worker_sequence, event=event)


def outcome(worker_sequence: int, **ending: Any) -> worker_pb2.WorkerReport:
    return worker_pb2.WorkerReport(worker_sequence=worker_sequence, outcome=worker_pb2.Outcome(**ending))


WORKER = Caller(1, "runner", "token")


def claim(term: Term, store: Store) -> str | None:
    """Claims the next job, and begins its attempt as WORKER."""
    job = term.claim_next()
    if job is None:
        return None
    term.renew_token(job.id, attempt=job.attempt, token=WORKER.token)
    store.begin_attempt(job.id, replace(WORKER, attempt=job.attempt))
    return job.id


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Returns what the calls return, all made at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_migrations_make_exactly_the_tables_that_the_code_knows(database: Database) -> None:
    with database.read() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, Base.metadata) == []


def test_services_that_start_at_once_migrate_one_after_another(url: str) -> None:
    databases = [Database(url) for _ in range(6)]
    at_once([database.migrate for database in databases])
    Store(databases[0]).create(new("a"))
    assert Store(databases[-1]).get("training", "a").number == 1
    for database in databases:
        database.close()


def test_creating_again_with_the_same_spec_returns_the_job_that_exists(store: Store) -> None:
    first, second = store.create(new("a")), store.create(new("a"))
    assert (first.number, first.last_sequence) == (second.number, second.last_sequence) == (1, 1)


def test_one_id_created_at_once_is_one_job(store: Store) -> None:
    jobs = at_once([lambda: store.create(new("a"))] * 8)
    assert {job.number for job in jobs} == {1}


@pytest.mark.parametrize("other", [{"spec": b"other"}, {"kind": "conversion"}])
def test_an_id_belongs_to_one_spec_and_kind(store: Store, other: dict[str, Any]) -> None:
    store.create(new("a"))
    with pytest.raises(AlreadyExists):
        store.create(new("a", **other))


def test_a_job_of_another_kind_is_not_found(store: Store) -> None:
    store.create(new("a", kind="conversion"))
    with pytest.raises(NotFound):
        store.get("training", "a")


def test_claims_at_once_hand_out_each_job_once_oldest_first(store: Store, term: Term) -> None:
    for name in "abc":
        store.create(new(name))
    assert claim(term, store) == "a"
    assert sorted(filter(None, at_once([lambda: claim(term, store)] * 5))) == ["b", "c"]


def test_versions_claimed_at_once_differ_and_leave_out_what_is_taken(store: Store) -> None:
    def convert(i: int) -> int:
        job = new(f"c{i}", kind="conversion", model="m", version_floor=4)
        return store.create(job).version

    assert sorted(at_once([lambda i=i: convert(i) for i in range(8)])) == list(range(5, 13))  # type: ignore[misc]


def test_a_version_number_is_not_used_again_after_its_job_is_deleted(store: Store) -> None:
    store.create(new("c1", kind="conversion", model="m"))
    store.request_cancel("conversion", "c1")
    store.delete("conversion", "c1")
    assert store.create(new("c1", kind="conversion", model="m")).version == 2


def test_a_report_sent_twice_is_one_event(store: Store, term: Term) -> None:
    store.create(new("a"))
    claim(term, store)
    assert [store.take_report("a", WORKER, report(n)) for n in (1, 2, 1, 2, 3)] == [1, 2, 2, 2, 3]
    events = store.events("a", from_sequence=3, limit=10)
    assert [(e.sequence, e.warning.message) for e in events] == [(3, "1"), (4, "2"), (5, "3")]


def test_reports_of_many_threads_get_sequence_numbers_without_gap_or_repeat(store: Store, term: Term) -> None:
    for name in ("a", "b"):
        store.create(new(name))
        claim(term, store)

    def tell(name: str) -> None:
        for n in range(1, 16):
            store.take_report(name, WORKER, report(n))

    at_once([lambda name=name: tell(name) for name in "aabb"])  # type: ignore[misc]
    for name in "ab":
        events = store.events(name, from_sequence=1, limit=100)
        assert [e.sequence for e in events] == list(range(1, 18))


def test_a_report_of_an_attempt_that_is_over_is_refused(store: Store, term: Term) -> None:
    store.create(new("a"))
    claim(term, store)
    term.conclude("a", attempt=1, reports=[], death=Death("died"))
    with pytest.raises(NotReady):
        store.take_report("a", WORKER, report(1))
    with pytest.raises(NotFound):
        store.take_report("b", WORKER, report(1))


def test_the_spool_of_a_gone_worker_fills_in_what_was_never_pushed(store: Store, term: Term) -> None:
    store.create(new("a"))
    claim(term, store)
    store.take_report("a", WORKER, report(1))
    result = training_pb2.TrainingResult(checkpoint_uri="here")
    reports = [report(1), report(2), outcome(3, training=result)]
    job = term.conclude("a", attempt=1, reports=reports, death=Death("gone"))
    assert (job.state, job.result) == (_S.STATE_SUCCEEDED, result.SerializeToString())
    kinds = [e.WhichOneof("event") for e in store.events("a", from_sequence=1, limit=100)]
    assert kinds == ["state_changed", "state_changed", "warning", "warning", "state_changed"]


def test_a_second_conclusion_of_one_attempt_changes_nothing(store: Store, term: Term) -> None:
    store.create(new("a"))
    claim(term, store)
    term.conclude("a", attempt=1, reports=[], death=Death("died"))
    with pytest.raises(NotReady):
        term.conclude("a", attempt=1, reports=[], death=Death("died"))
    assert store.get("training", "a").state == _S.STATE_PENDING


def test_a_job_that_was_retried_goes_before_younger_ones(store: Store, term: Term) -> None:
    for name in "ab":
        store.create(new(name))
    claim(term, store)
    term.conclude("a", attempt=1, reports=[], death=Death("died"))
    assert claim(term, store) == "a"
    assert store.get("training", "a").attempt == 2


def test_a_job_that_has_to_wait_lets_younger_ones_pass(store: Store, term: Term) -> None:
    for name in "ab":
        store.create(new(name))
    claim(term, store)
    away = BackendUnavailable("away", reason="AWAY").to_status()
    ended = [outcome(1, error=away, retryable=True)]
    term.conclude("a", attempt=1, reports=ended, death=Death(""), retry_delay_seconds=60)
    assert [claim(term, store), claim(term, store)] == ["b", None]
    seconds = term.seconds_until_due()
    assert seconds is not None
    assert 50 < seconds <= 60


def test_cancelling_a_job_that_is_over_changes_nothing(store: Store) -> None:
    store.create(new("a"))
    first = store.request_cancel("training", "a")
    second = store.request_cancel("training", "a")
    assert (
        (first.state, first.last_sequence) == (second.state, second.last_sequence) == (_S.STATE_CANCELLED, 2)
    )


def test_only_a_job_that_is_over_can_be_deleted(store: Store) -> None:
    store.create(new("a"))
    with pytest.raises(NotReady):
        store.delete("training", "a")
    store.request_cancel("training", "a")
    store.delete("training", "a")
    assert store.find("a") is None
    assert store.events("a", from_sequence=1, limit=10) == []


def test_a_number_is_not_used_again_after_its_job_is_deleted(store: Store) -> None:
    store.create(new("a"))
    store.request_cancel("training", "a")
    store.delete("training", "a")
    assert store.create(new("b")).number == 2


@pytest.mark.parametrize(
    "bad",
    [
        f"postgresql://conch:{PASSWORD}@127.0.0.1:1/none",
        f"postgresql://conch:{PASSWORD}@127.0.0.1:port/none",
        f"mysql://conch:{PASSWORD}@127.0.0.1/none",
        "sqlite:////no/such/folder/jobs.db",
        "no url at all",
    ],
)
def test_a_database_that_cannot_be_used_is_unavailable_and_its_password_stays_secret(bad: str) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        Database(bad).migrate()
    assert PASSWORD not in caught.value.message


def test_a_wrong_password_is_unavailable_and_stays_secret(postgres: Postgres) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        Database(postgres.new_database().replace(PASSWORD, "wrong-guess")).migrate()
    assert "wrong-guess" not in caught.value.message
    assert "password authentication failed" in caught.value.message


def test_a_database_of_a_later_release_is_refused_with_a_sentence(database: Database, url: str) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BackendUnavailable, match="another release"):
        Database(url).migrate()


def test_an_id_that_no_job_can_have_is_not_found(store: Store) -> None:
    for job_id in ("a\0b", "x" * 100_000, "é"):
        with pytest.raises(NotFound):
            store.get("training", job_id)
        with pytest.raises(NotFound):
            store.request_cancel("training", job_id)


def test_a_leader_whose_term_is_over_changes_nothing(database: Database, store: Store, term: Term) -> None:
    for name in "ab":
        store.create(new(name))
    claim(term, store)
    Term.begin(database, "conversion")
    term.renew_token("a", attempt=1, token="renewed")
    Term.begin(database, "training")
    for change in (
        term.claim_next,
        lambda: term.renew_token("a", attempt=1, token="late"),
        lambda: term.record_worker("a", attempt=1, name="late", mark=""),
        lambda: term.conclude("a", attempt=1, reports=[], death=Death("late")),
    ):
        with pytest.raises(TermOver):
            change()
    assert [store.get("training", name).state for name in "ab"] == [_S.STATE_RUNNING, _S.STATE_PENDING]
    assert store.begin_attempt("a", replace(WORKER, token="renewed")) == 0


def test_terms_that_begin_at_once_differ_and_the_last_alone_holds(database: Database, store: Store) -> None:
    store.create(new("a"))
    terms = at_once([lambda: Term.begin(database, "training")] * 6)

    def holds(term: Term) -> bool:
        try:
            return term.claim_next() is not None
        except TermOver:
            return False

    assert sorted(map(holds, terms)) == [False] * 5 + [True]


def test_an_attempt_is_opened_by_its_own_token_and_reported_on_by_its_last_runner(
    store: Store, term: Term
) -> None:
    store.create(new("a"))
    claim(term, store)
    with pytest.raises(Unauthenticated):
        store.begin_attempt("a", replace(WORKER, token="guess"))
    assert store.take_report("a", WORKER, report(1)) == 1
    second = replace(WORKER, runner="second")
    assert store.begin_attempt("a", second) == 1
    with pytest.raises(NotReady):
        store.take_report("a", WORKER, report(2))
    assert store.take_report("a", second, report(2)) == 2


def test_a_runner_that_wound_down_does_not_speak_for_its_successor(store: Store, term: Term) -> None:
    store.create(new("a", max_attempts=1))
    claim(term, store)
    store.take_report("a", WORKER, outcome(1, cancelled=worker_pb2.Cancelled()))
    assert store.begin_attempt("a", WORKER) == 1
    assert store.get("training", "a").outcome is not None
    assert store.begin_attempt("a", replace(WORKER, runner="second")) == 1
    job = term.conclude("a", attempt=1, reports=[], death=Death("the second one was killed"))
    assert job.error is not None
    assert b"the second one was killed" in job.error


def test_a_database_of_the_first_release_keeps_its_jobs_and_its_running_workers(url: str) -> None:
    database = Database(url)
    with database.write() as session:
        migrate_to(session.connection(), "0001")
        session.execute(text(_OLD_JOB))
    database.migrate()
    (job,) = Term.begin(database, "training").running()
    assert (job.id, job.worker_name, job.worker_mark) == ("old", "4711", "boot/1")
    assert Store(database).events("old", from_sequence=1, limit=10) == []
    database.close()


_OLD_JOB = """
INSERT INTO jobs (id, kind, spec, state, attempt, max_attempts, create_time, not_before, last_sequence,
                  cancel_requested, version, folder, worker_sequence, worker_pid, worker_mark)
VALUES ('old', 'training', '', 2, 1, 3, 1, 0, 0, FALSE, 0, '/jobs/old', 0, 4711, 'boot/1')
"""


def migrate_to(connection: Connection, revision: str) -> None:
    """Makes the tables of an earlier release."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(ROOT / "services" / "jobs" / "migrations"))
    command.upgrade(config, revision)
