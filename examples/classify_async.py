"""Many calls at once from asyncio: `python -m examples.classify_async [ADDRESS] [MODEL]`.

The gateway gathers what arrives together into batches, so callers send texts as they come.
"""

import asyncio
import sys

from conch.client import AsyncConch

TEXTS = [f"Film number {i} was {'wonderful' if i % 2 else 'a waste of time'}." for i in range(16)]


async def main(address: str = "127.0.0.1:50051", model: str = "sentiment") -> None:
    """Asks for every text in a call of its own and prints the labels in order."""
    async with AsyncConch(address, timeout_seconds=10) as conch:
        answers = await asyncio.gather(*(conch.classify([text], model=model, top_k=1) for text in TEXTS))
    for text, answer in zip(TEXTS, answers, strict=True):
        best = answer.classifications[0].labels[0]
        print(f"{best.label}  {best.score:.3f}  {text}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
