"""Bad values are refused before anything reaches a cluster, and the refusal names where they stand."""

import pytest

from tests.chart import charts
from tests.chart.refusals import BY_SCHEMA, BY_TEMPLATES


@pytest.mark.parametrize("case", BY_SCHEMA)
def test_the_schema_refuses_and_names_the_path(case: str) -> None:
    bad = BY_SCHEMA[case]
    with pytest.raises(charts.RefusedError) as refused:
        charts.text(*bad.sets, file=charts.FILES[bad.name])
    assert "values don't meet the specifications of the schema" in str(refused.value)
    assert bad.words in str(refused.value)


@pytest.mark.parametrize("case", BY_TEMPLATES)
def test_a_template_refuses_and_names_the_path(case: str) -> None:
    bad = BY_TEMPLATES[case]
    with pytest.raises(charts.RefusedError) as refused:
        charts.text(*bad.sets, file=charts.FILES[bad.name])
    assert "execution error" in str(refused.value)
    assert bad.words in str(refused.value)
