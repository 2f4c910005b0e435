"""`python -m benchmarks.autoscaling`, as a person types it; and the paper beside the numbers it tells."""

import re
from pathlib import Path

import pytest

from benchmarks.autoscaling import chart, large_scale
from benchmarks.autoscaling.__main__ import main
from benchmarks.autoscaling.estate import Estate
from benchmarks.autoscaling.hpa_settings import HpaSettings

PAPER = Path(__file__).parents[3] / "docs" / "scaling.md"


def test_a_quick_run_prints_a_table_and_ratios_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--steps", "2", "--shape", "flash-crowd", "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    ratios = dict(re.findall(r"^ratio (\S+) (\S+)$", printed, re.M))
    assert float(ratios["autoscaling_flash_crowd_pod_hours_over_oracle"]) > 0.5
    assert set(ratios) == {
        "autoscaling_flash_crowd_pod_hours_over_oracle",
        "autoscaling_flash_crowd_unserved",
        "autoscaling_flash_crowd_tuned_pod_hours_over_oracle",
        "autoscaling_flash_crowd_tuned_unserved",
        "autoscaling_flash_crowd_cpu_pod_hours_over_oracle",
        "autoscaling_flash_crowd_cpu_unserved",
    }
    assert "AMD EPYC" in printed
    assert (tmp_path / "autoscaling-flash-crowd.png").stat().st_size > 10_000


def test_help_teaches_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("simulate", "sweep", "measure", "large-scale", "Examples", "--hpa", "--seed"):
        assert word in printed


def test_the_copy_of_the_autoscaler_is_what_the_chart_renders() -> None:
    helm = chart.helm()
    if helm is None:
        pytest.skip("helm is not installed: scripts/chart_tools.sh")
    assert HpaSettings.parse(chart.rendered(helm)) == chart.settings()


def test_a_whole_rendering_of_the_chart_gives_its_first_pool(tmp_path: Path) -> None:
    gateway = "kind: HorizontalPodAutoscaler\nspec: {scaleTargetRef: {name: conch-gateway}}\n"
    whole = tmp_path / "rendered.yaml"
    whole.write_text(f"kind: Service\n---\n{gateway}---\n# Source: a comment\n---\n{chart.COPY.read_text()}")
    assert chart.settings(whole) == chart.settings()
    whole.write_text(gateway)
    with pytest.raises(ValueError, match=r"autoscaling\.kind=hpa"):
        chart.settings(whole)


def test_the_paper_tells_the_numbers_that_the_script_prints() -> None:
    paper = PAPER.read_text(encoding="utf-8")
    missing = [line for line in large_scale.tables(Estate()).splitlines() if line not in paper]
    assert not missing


def test_what_gives_way_first_stands_first() -> None:
    reaches = [reach.gateways for reach in large_scale.reaches(Estate())]
    assert reaches == sorted(reaches)


@pytest.mark.parametrize(("size", "name", "count"), [(512, "a.b", 30), (65_535, "a.b", 4_094)])
def test_as_many_addresses_as_a_response_holds(size: int, name: str, count: int) -> None:
    assert large_scale.addresses(size, name) == count


def test_a_subset_has_enough_servers_to_lose_one_and_no_more_than_there_are() -> None:
    assert large_scale.subset_size(Estate(), gateways_per_server=20) == 20
    assert large_scale.subset_size(Estate(servers_per_pool=8), gateways_per_server=20) == 8
    assert large_scale.subset_size(Estate(gateways=100), gateways_per_server=20) == 200
