"""Values that the chart refuses, each with the path that the refusal must name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bad:
    """What is set ("path=JSON") over which values file, and words of the refusal, the path among them."""

    sets: tuple[str, ...]
    words: str
    name: str = "default"


_ONE = '{"versions":[{"version":1,"weight":1}]}'

BY_SCHEMA = {
    "a value that there is not": Bad(("gateway.replica=2",), "gateway"),
    "a section that there is not": Bad(("gatewy={}",), "gatewy"),
    "a number as text": Bad(('gateway.replicas="two"',), "gateway.replicas"),
    "latest": Bad(('image.tag="latest"',), "image.tag"),
    "an image without version": Bad(('database.embedded.image="postgres"',), "database.embedded.image"),
    "latest of Triton": Bad(
        ('triton.images.vllm="nvcr.io/nvidia/tritonserver:latest"',), "triton.images.vllm"
    ),
    "a digest that is none": Bad(('image.digests.gateway="sha256:12"',), "image.digests.gateway"),
    "a runtime that there is not": Bad(('pools=[{"name":"a","runtime":"torch"}]',), "pools.0.runtime"),
    "a pool without name": Bad(('pools=[{"runtime":"openvino"}]',), "pools.0"),
    "no pool": Bad(("pools=[]",), "pools"),
    "a weight below 0": Bad(
        ('models.a={"versions":[{"version":1,"weight":-1}]}',), "models.a.versions.0.weight"
    ),
    "a version without weight": Bad(('models.a={"versions":[{"version":1}]}',), "models.a.versions.0"),
    "version 0": Bad(('models.a={"versions":[{"version":0,"weight":1}]}',), "models.a.versions.0.version"),
    "a model without version": Bad(('models.a={"versions":[]}',), "models.a.versions"),
    "a path as URI": Bad(('storage.repositoryUri="/models"',), "storage.repositoryUri"),
    "a setting that there is not": Bad(('gateway.env.CONCH_TOKENS="1"',), "gateway.env"),
    "a setting that the chart sets": Bad(('gateway.env.CONCH_POOLS="{}"',), "gateway.env"),
    "a setting of another service": Bad(('trainer.env.CONCH_TOKEN_BUDGET="1"',), "trainer.env"),
    "a positional argument": Bad(('pools=[{"name":"a","extraArgs":["rm"]}]',), "pools.0.extraArgs.0"),
    "an unknown protocol": Bad(('gateway.service.appProtocol="http"',), "gateway.service.appProtocol"),
    "a route to nowhere": Bad(("gateway.route.enabled=true",), "gateway.route.parentRefs"),
    "an unknown autoscaler": Bad(('autoscaling.kind="vpa"',), "autoscaling.kind"),
    "a profile for nobody known": Bad(
        ('jobs.profiles.default.services=["gateway"]',), "jobs.profiles.default"
    ),
    "an uncertified everything": Bad(
        ('rollout.allowUncertified=["sentiment"]',), "rollout.allowUncertified.0"
    ),
}
"""Refused by values.schema.json."""

BY_TEMPLATES = {
    "a pool that there is not": Bad((f"models.a={_ONE}", 'models.a.pool="gpu"'), "models.a.pool"),
    "a pool of several, unnamed": Bad(
        (f"models.a={_ONE}", 'pools=[{"name":"a"},{"name":"b"}]'), "models.a.pool"
    ),
    "a version twice": Bad(
        ('models.a={"versions":[{"version":1,"weight":1},{"version":1,"weight":0}]}',), "models.a.versions"
    ),
    "no weight": Bad(('models.a={"versions":[{"version":1,"weight":0}]}',), "models.a.versions"),
    "a shadow that answers": Bad((f"models.a={_ONE}", "models.a.shadow=1"), "models.a.shadow"),
    "two pools of a name": Bad(('pools=[{"name":"a"},{"name":"a"}]',), "pools"),
    "an update that cannot begin": Bad(
        ('pools=[{"name":"a","maxSurge":0}]',), "pools.a: with maxSurge and maxUnavailable"
    ),
    "TensorRT without GPU": Bad(('pools=[{"name":"a","runtime":"tensorrt"}]',), "pools.a.gpus"),
    "a grace that cuts calls off": Bad(
        ("gateway.terminationGracePeriodSeconds=300",), "gateway.terminationGracePeriodSeconds"
    ),
    "a default profile that there is not": Bad(('jobs.defaultProfile="gpu"',), "jobs.defaultProfile"),
    "a default profile for the trainer alone": Bad(
        ('jobs.profiles.default.services=["trainer"]',), "jobs.defaultProfile"
    ),
    "no database": Bad(("database.embedded.enabled=false",), "database"),
    "an HPA from zero": Bad(('autoscaling.kind="hpa"', "autoscaling.pools.minReplicas=0"), "minReplicas"),
    "fewer gateways than the fewest": Bad(
        ('autoscaling.kind="keda"', "autoscaling.gateway.maxReplicas=1"), "autoscaling.gateway"
    ),
    "fewer pods than the fewest": Bad(
        ('autoscaling.kind="hpa"', "autoscaling.pools.maxReplicas=1", "autoscaling.pools.minReplicas=2"),
        "maxReplicas",
    ),
}
"""Refused by a template, for it takes two values to see what is wrong."""
