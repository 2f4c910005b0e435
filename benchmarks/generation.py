"""`make bench-generation`: streams through gateway and Triton beside transformers' generate, interleaved.

Both write the same number of greedy tokens after the same prompts, on all cores, one at a time; the other
side waits meanwhile. transformers answers 8 prompts as one batch, as fast as it can; Conch as 8 streams.
Prints `ratio <name> <value>`: medians over rounds of tokens per second, ours over theirs.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers import Peer
from conch.client import Conch as Client
from examples.assets import austen, smollm2
from examples.stack import Conch, running

MODEL, TOKENS, STREAMS = "smollm2", 64, 8
PRECISIONS = ("int8", "bf16", "fp32")
# Of a model that is kept as it is; the held-out texts are for its certificate.
_SHIP = (
    "--task text-generation --no-training --max-length 512 --max-validation-examples 8 --parity-examples 32"
)


def main() -> None:
    """Measures each precision and prints the ratios."""
    parser = argparse.ArgumentParser(prog="make bench-generation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of each comparison")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all, int8 first")
    options = parser.parse_args()
    peer = Peer.start(smollm2(), threads=os.cpu_count() or 1)
    with running(_home(), runtime="openvino") as conch:
        for precision in options.precision or PRECISIONS:
            _ship(conch, precision)
            Bench(conch, peer, precision, options.rounds).run()
    peer.stop()


class Bench:
    """The comparisons of one precision."""

    def __init__(self, conch: Conch, peer: Peer, precision: str, rounds: int) -> None:
        self.rounds = rounds
        self._client = Client(conch.gateway, timeout_seconds=300)
        self._peer = peer
        # The first precision is the one that is asked for and has the plain names.
        self._suffix = "" if precision == PRECISIONS[0] else f"_{precision}"
        self._prompts = _prompts(STREAMS)

    def run(self) -> None:
        """Warms both sides up, then measures."""
        for name, prompts in (("1_stream", self._prompts[:1]), ("8_streams", self._prompts)):
            self._report(f"generation_over_hf_{name}", lambda p=prompts: self._one_round(p))  # type: ignore[misc]
        self._report("first_piece_beside_7_streams_over_alone", self._first_pieces)

    def _one_round(self, prompts: Sequence[str]) -> float:
        """Returns our tokens per second over theirs."""
        return self._peer.seconds(prompts, TOKENS) / self._seconds(prompts)

    def _seconds(self, prompts: Sequence[str]) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            written = list(pool.map(self._write, prompts))
        seconds = time.perf_counter() - started
        assert written == [TOKENS] * len(prompts), f"{written} tokens, not {TOKENS} each"
        return seconds

    def _write(self, prompt: str) -> int:
        *_, last = self._stream(prompt)
        return int(last.piece.usage.num_generated_tokens)

    def _stream(self, prompt: str):  # type: ignore[no-untyped-def]  # the client's own type
        return self._client.generate(
            prompt, model=MODEL, temperature=0.0, max_tokens=TOKENS, min_tokens=TOKENS
        )

    def _first_pieces(self) -> float:
        """Returns how much longer a first piece takes while 7 other streams run."""
        alone = self._first_piece(self._prompts[0])
        with ThreadPoolExecutor(STREAMS) as pool:
            others = [pool.submit(self._write, prompt) for prompt in self._prompts[1:]]
            time.sleep(0.3)
            beside = self._first_piece(self._prompts[0])
            assert not all(other.done() for other in others), "the others ended before it began"
        print(f"first piece {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside 7 streams", flush=True)
        return beside / alone

    def _first_piece(self, prompt: str) -> float:
        started = time.perf_counter()
        for _ in self._stream(prompt):
            return time.perf_counter() - started
        raise AssertionError("a stream without a piece")

    def _report(self, name: str, one_round: Callable[[], float]) -> None:
        one_round()
        ratios = [one_round() for _ in range(self.rounds)]
        spread = f"min {min(ratios):.3f} max {max(ratios):.3f} rounds {self.rounds}"
        print(f"ratio {name}{self._suffix} {statistics.median(ratios):.3f}  ({spread})", flush=True)


def _home() -> Path:
    return Path(os.environ.get("CONCH_HOME", ".conch")).absolute() / "bench-generation"


def _ship(conch: Conch, precision: str) -> None:
    """Makes and routes the version of a precision; what an earlier run made is used again."""
    target = f"--target openvino={precision} --id bench-{precision}"
    data, base = str(austen()), str(smollm2())
    conch("ship", data, "--model", MODEL, "--base-model", base, *_SHIP.split(), *target.split())


def _prompts(num: int) -> list[str]:
    """Returns the first words of passages, 20 to 40 tokens."""
    passages = austen().read_text(encoding="utf-8").split("\n\n")
    return [" ".join(passage.split()[: 16 + 2 * i]) for i, passage in enumerate(passages[:num])]


if __name__ == "__main__":
    main()
