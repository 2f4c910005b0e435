"""What the gateway's tests share: a Triton that can be made to fail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.fake_triton import FakeTriton, running


@pytest.fixture
async def triton(tmp_path: Path) -> AsyncIterator[FakeTriton]:
    """A fake Triton that loads from the folder that the gateway stages into."""
    async with running(repository=tmp_path / "staged") as fake:
        yield fake
