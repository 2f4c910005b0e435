"""`make bench`: Conch beside its limits, interleaved in one run. Prints `ratio <name> <value>`.

Every ratio is the median over rounds of the ratio within a round, so that a machine whose speed
drifts disturbs both sides alike.
"""

import argparse
import os
import statistics
from collections.abc import Callable

from benchmarks import prepared, texts
from benchmarks.direct import Direct, Through, seconds
from benchmarks.inprocess import InProcess
from benchmarks.load import Callers, Load
from benchmarks.prepared import FP32, INT8, MAX_LENGTH, MODEL
from benchmarks.servers import Gateway, serving
from services.tasks.encoding import Encoder

UNBATCHED = {"CONCH_MAX_ROWS": "1", "CONCH_MAX_INFLIGHT": "64"}
CALLERS = 64


def main() -> None:
    """Measures everything and prints the ratios."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of each comparison")
    parser.add_argument("--texts", type=int, default=512, help="texts in one pass")
    options = parser.parse_args()
    Bench(options.rounds, options.texts).run()


class Bench:
    """The comparisons, on one set of texts and one set of servers."""

    def __init__(self, rounds: int, num_texts: int) -> None:
        self.rounds = rounds
        self.texts = texts.mixed(num_texts)
        self.callers = Callers()
        encoder = Encoder.from_file(prepared.version_folder(FP32) / "tokenizer.json", MAX_LENGTH)
        self.lengths = [len(tokens) for tokens in encoder.encode(self.texts)]
        print(f"{num_texts} reviews of {min(self.lengths)} to {max(self.lengths)} tokens, "
              f"mean {statistics.mean(self.lengths):.0f}; {os.cpu_count()} cores", flush=True)  # fmt: skip

    def run(self) -> None:
        """Starts the servers and runs every comparison."""
        with (
            serving("ort", "onnxruntime", **UNBATCHED) as (batched, unbatched),
            serving("ov", "openvino") as (ov,),
        ):
            self.against_direct_triton(batched)
            self.batched_against_unbatched(batched, unbatched)
            self.precisions_and_runtimes(batched, ov)
            for name, gateway in (("onnxruntime", batched), ("openvino", ov)):
                self.against_inprocess(name, gateway)
        self.callers.stop()

    def against_direct_triton(self, gateway: Gateway) -> None:
        """One caller, 128 tokens: median latency through the gateway over tritonclient's own."""
        text = texts.of_tokens(self.texts, self.lengths, 128)
        through, direct = Through(gateway.target), Direct(gateway.triton)

        def one_round() -> float:
            pairs = [(seconds(through, text), seconds(direct, text)) for _ in range(80)]
            ours, theirs = map(statistics.median, zip(*pairs, strict=True))
            return float(ours / theirs)

        one_round()

        self._report("gateway_over_direct_triton_p50", one_round)

    def batched_against_unbatched(self, batched: Gateway, unbatched: Gateway) -> None:
        """The gateway's CPU time for a request, with natural batching over without."""
        for callers in (16, CALLERS):
            self._report(
                f"batched_over_unbatched_cpu_{callers}",
                lambda n=callers: self._cpu(batched, n) / self._cpu(unbatched, n),  # type: ignore[misc]
            )

    def precisions_and_runtimes(self, ort: Gateway, ov: Gateway) -> None:
        """64 callers through gateway and Triton: int8 over fp32, and openvino bf16 over onnxruntime fp32."""
        throughput = {
            name: self._rounds_of(gateway, version)
            for name, gateway, version in (("int8", ort, INT8), ("openvino", ov, FP32), ("fp32", ort, FP32))
        }
        self._report("int8_over_fp32_throughput", lambda: throughput["int8"]() / throughput["fp32"]())
        self._report(
            "openvino_over_onnxruntime_throughput", lambda: throughput["openvino"]() / throughput["fp32"]()
        )

    def against_inprocess(self, runtime: str, gateway: Gateway) -> None:
        """64 callers through gateway and Triton over the same graph, sorted, in process on the same cores."""
        version = prepared.version_folder(FP32)
        limit = InProcess.start(version, runtime, max_length=MAX_LENGTH, threads=os.cpu_count() or 1)
        budget = limit.best_budget(self.texts)
        through = self._rounds_of(gateway, FP32)
        suffix = "" if runtime == "onnxruntime" else f"_{runtime}"
        self._report(
            f"gateway_over_inprocess_throughput{suffix}",
            lambda: through() * limit.seconds(self.texts, budget) / len(self.texts),
        )
        limit.stop()

    def _rounds_of(self, gateway: Gateway, version: int) -> Callable[[], float]:
        self._load(gateway, self.texts[:CALLERS], version=version)
        return lambda: self._load(gateway, self.texts, version=version).throughput

    def _cpu(self, gateway: Gateway, callers: int) -> float:
        short = self.texts[: len(self.texts) // 2]
        before = gateway.cpu_seconds()
        self._load(gateway, short, callers=callers)
        return (gateway.cpu_seconds() - before) / len(short)

    def _load(
        self, gateway: Gateway, bodies: list[str], *, callers: int = CALLERS, version: int = FP32
    ) -> Load:
        return self.callers.run(gateway.target, bodies, model=MODEL, version=version, callers=callers)

    def _report(self, name: str, one_round: Callable[[], float]) -> None:
        ratios = [one_round() for _ in range(self.rounds)]
        spread = f"min {min(ratios):.3f} max {max(ratios):.3f} rounds {self.rounds}"
        print(f"ratio {name} {statistics.median(ratios):.3f}  ({spread})", flush=True)


if __name__ == "__main__":
    main()
