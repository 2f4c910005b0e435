"""models, route and rollback against services that follow a script."""

import pytest

from tests.contract.cli.conftest import Conch
from tests.contract.cli.fakes import FakeServices


def test_models_lists_and_shows_the_certificates_figures(conch: Conch) -> None:
    assert conch("models", "--json").lines[0]["name"] == "sentiment"
    assert "3, 2" in conch("models").stdout
    shown = conch("models", "show", "sentiment")
    assert "label_flip_rate" in shown.stdout
    assert conch("models", "show", "sentiment", "--version", "2", "--json").lines[0]["version"] == "2"


def test_route_sets_weights_in_the_users_name(conch: Conch, services: FakeServices) -> None:
    ran = conch("route", "sentiment", "3=90", "4=10", "--reason", "canary")
    assert ran.code == 0
    assert ran.stdout == "sentiment: none -> 3=90 4=10 (change 1)\n"
    assert "@" in services.ledger[0].actor
    assert services.ledger[0].reason == "canary"


def test_one_version_alone_gets_all_calls(conch: Conch, services: FakeServices) -> None:
    conch("route", "sentiment", "4")
    assert [(v.version, v.weight) for v in services.routes["sentiment"].versions] == [(4, 100)]


def test_a_shadow_and_a_pool_are_part_of_the_route_and_come_back_with_it(
    conch: Conch, services: FakeServices
) -> None:
    ran = conch("route", "sentiment", "3", "--shadow", "4", "--pool", "cpu")
    assert ran.stdout == "sentiment: none -> 3=100 shadow 4 in cpu (change 1)\n"
    shown = conch("route", "sentiment").stdout.splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["sentiment", "3", "100", "100%", "cpu"],
        ["sentiment", "4", "shadow", "cpu"],
    ]
    assert "3=100 shadow 4 in cpu -> 4=100" in conch("route", "sentiment", "4").stdout
    conch("rollback", "sentiment")
    assert (services.routes["sentiment"].shadow, services.routes["sentiment"].pool) == (4, "cpu")
    ran = conch("route", "sentiment", "--shadow", "4")
    assert (ran.code, "say its versions" in ran.stderr) == (2, True)


def test_route_shows_one_model_or_all(conch: Conch) -> None:
    conch("route", "sentiment", "3=1", "4=3")
    assert "75%" in conch("route").stdout
    assert conch("route", "sentiment", "--json").lines[0]["model"] == "sentiment"
    assert conch("route", "topics").code == 3


@pytest.mark.parametrize("bad", [("x",), ("3=a",), ("3", "4")])
def test_a_weight_that_is_none_is_refused(conch: Conch, bad: tuple[str, ...]) -> None:
    ran = conch("route", "sentiment", *bad)
    assert ran.code == 2
    assert "version=weight" in ran.stderr


def test_history_is_the_ledger(conch: Conch) -> None:
    conch("route", "sentiment", "3")
    conch("route", "sentiment", "4")
    assert [c["sequence"] for c in conch("route", "sentiment", "--history", "--json").lines] == ["2", "1"]


def test_rollback_goes_one_further_back_each_time(conch: Conch, services: FakeServices) -> None:
    for version in ("1", "2", "3"):
        conch("route", "sentiment", version)
    assert "3=100 -> 2=100" in conch("rollback", "sentiment", "--reason", "refunds").stdout
    assert services.ledger[0].reason == "rollback to change 2: refunds"
    assert "2=100 -> 1=100" in conch("rollback", "sentiment").stdout
    ran = conch("rollback", "sentiment")
    assert (ran.code, ran.stderr) == (4, "conch: model sentiment has no earlier route to go back to\n")


def test_services_that_are_down_are_one_line_with_what_to_type(
    conch: Conch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCH_GATEWAY_ADDRESS", "127.0.0.1:1")
    ran = conch("models")
    assert ran.code == 5
    assert ran.stderr.startswith("conch: nothing answers at 127.0.0.1:1; start it with: conch up")


def test_a_setting_that_cannot_be_read_is_one_line(conch: Conch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCH_TRITON_HTTP_PORT", "many")
    ran = conch("models")
    assert ran.code == 2
    assert ran.stderr.startswith("conch: CONCH_TRITON_HTTP_PORT:")


def test_status_says_that_nothing_is_up(conch: Conch) -> None:
    ran = conch("status", "--json")
    assert (ran.code, ran.lines) == (1, [{"up": False, "leftOver": []}])


def test_down_with_nothing_up_is_no_error(conch: Conch) -> None:
    ran = conch("down", "--json")
    assert (ran.code, ran.lines) == (0, [{"stopped": []}])


def test_doctor_fails_with_a_line_to_type_for_each_lack(conch: Conch) -> None:
    ran = conch("doctor", "--json")
    (report,) = ran.lines
    assert ran.code == 1
    lacks = [check for check in report["checks"] if not check["passed"]]
    assert any(check["fix"] == "conch up --detach" for check in lacks)
    assert all(check["fix"] for check in lacks)
