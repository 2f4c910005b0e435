"""What the gateway's tests share: a Triton that can be made to fail, and a pool of such."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.fake_triton import FakeTriton, running
from tests.contract.gateway.pools import Pool, pool


@pytest.fixture
async def triton(tmp_path: Path) -> AsyncIterator[FakeTriton]:
    """A fake Triton that loads from the folder that the gateway stages into."""
    async with running(repository=tmp_path / "staged") as fake:
        yield fake


@pytest.fixture
async def cpu(tmp_path: Path) -> AsyncIterator[Pool]:
    """A pool without pods."""
    async with pool(tmp_path) as made:
        yield made
