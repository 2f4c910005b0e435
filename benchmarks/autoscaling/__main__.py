"""`make bench-autoscaling`: how Conch's autoscaling would do, without a cluster.

A discrete-event model: callers arrive at random (Poisson, by four shapes of traffic) with texts as long as
real reviews; gateways gather them with the very queue, shapes and admission of services/gateway; pods
compute for as long as was measured, start slowly and leave gracefully; Prometheus scrapes, averages and
records; Kubernetes' HPA decides every 15 seconds by the manifest that the chart renders. Beside it stand
the same HPA with the leanest tokensPerServer that is sound for these texts (by sweep), an HPA on CPU, which
is what most people have, and an oracle that knows what will come.

Commands:
  simulate     play the shapes, print a table, `ratio <name> <value>` lines, and plots with --plots (default)
  sweep        turn each setting of the autoscaler alone and print what that does: how defaults were chosen
  measure      measure service_times.json and lengths.json anew on this machine (about 90 s)
  large-scale  what grows with 10,000 gateway pods, and what bounds it: the numbers of docs/scaling.md

Examples:
  python -m benchmarks.autoscaling --shape flash-crowd --plots /tmp
  python -m benchmarks.autoscaling --gateways 30 --deadline 0.3 --image-seconds 180
  helm template charts/conch --set autoscaling.kind=hpa -s TEMPLATE > mine.yaml
  python -m benchmarks.autoscaling --hpa mine.yaml

Reading the table: `refused` are RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED before anything was computed,
`late` are answers after the caller's deadline, `pod-h` counts a pod from its order until it is gone.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.autoscaling import chart, large_scale, measure, report, service, sweep, traffic
from benchmarks.autoscaling.pods import Delays
from benchmarks.autoscaling.simulation import World

QUICK = 0.1
SHAPES = ("steady", "daily-wave", "flash-crowd", "slow-leak")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command."""
    options = _parser().parse_args(arguments)
    if options.command == "measure":
        from benchmarks import prepared

        version = options.version_folder or prepared.version_folder(prepared.FP32)
        measure.measure(version, Path(__file__).parent, seconds=options.measure_seconds)
    elif options.command == "large-scale":
        large_scale.print_tables(options.pods)
    else:
        _simulate(options)


def _simulate(options: argparse.Namespace) -> None:
    world = _world(options)
    pod = world.calls_of_a_pod()
    print(f"{service.circumstances()}\n{world.runtime}: a pod answers {pod:.1f} texts a second when full; "
          f"a new pod serves after {world.pod_delays().serving:.0f} s; deadline {world.deadline_seconds} s; "
          f"{world.num_gateways} gateways; seed {world.seed}", flush=True)  # fmt: skip
    shapes = traffic.shapes(pod, scale=QUICK if options.quick else options.scale)
    chosen = {name: shape for name, shape in shapes.items() if name in (options.shape or SHAPES)}
    if options.command == "sweep":
        sweep.sweep(world, chosen, sweep.Knobs())
        return
    settings = chart.settings(options.hpa)
    for shape in chosen.values():
        found = report.compare(
            world, shape, settings, tokens=options.tokens, cpu=options.cpu, oracle_steps=options.steps
        )
        report.print_comparison(found)
        if options.plots:
            report.write_plots(found, world, options.plots)


def _world(options: argparse.Namespace) -> World:
    world = World(
        runtime=options.runtime,
        deadline_seconds=options.deadline,
        num_gateways=options.gateways,
        seed=options.seed,
    )
    return replace(world, delays=replace(Delays(), image=options.image_seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, World()
    add("command", nargs="?", default="simulate", choices=("simulate", "sweep", "measure", "large-scale"))
    add("--shape", action="append", choices=SHAPES, help="only this one; may be given again")
    add("--seed", type=int, default=default.seed, help="the same seed, the same run (default %(default)s)")
    add("--quick", action="store_true", help="a tenth of the time: for tests")
    add("--steps", type=int, default=5, help="of the oracle's search (default %(default)s)")
    add("--scale", type=float, default=1.0, help="lengthen the shapes; 12 makes a day of the daily wave")
    add("--hpa", type=Path, help="an autoscaling/v2 manifest (default: the chart's, hpa.yaml)")
    add("--tokens", type=float, default=250.0, help="of the tuned autoscaler, per server (%(default)s)")
    add("--cpu", type=float, default=70.0, help="target of the HPA on CPU, percent (default %(default)s)")
    add("--deadline", type=float, default=default.deadline_seconds, help="callers' seconds (%(default)s)")
    add("--gateways", type=int, default=default.num_gateways, help="gateway pods (default %(default)s)")
    add("--runtime", choices=measure.RUNTIMES, default=default.runtime, help="default %(default)s")
    add("--image-seconds", type=float, default=Delays().image, help="pulling Triton's image (%(default)s)")
    add("--plots", type=Path, metavar="FOLDER", help="write autoscaling-<shape>.png there")
    add("--version-folder", type=Path, help="measure: a published version (default: make bench's)")
    add("--measure-seconds", type=float, default=70.0, help="measure: time for it (default %(default)s)")
    add("--pods", type=int, default=10_000, help="large-scale: gateway pods (default %(default)s)")
    return parser


if __name__ == "__main__":
    main()
