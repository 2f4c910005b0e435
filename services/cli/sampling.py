"""How `conch generate` and `conch chat` choose tokens, as options of both.

Knows options and SamplingOptions; the gateway knows the ranges.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from conch.requests import sampling_options
from conch.v1 import inference_pb2
from services.cli.asking import read
from services.cli.specs import Option, Whole

_PANEL = "Sampling"


@dataclass(frozen=True)
class Sampling:
    """Each as in SamplingOptions; unset means its default."""

    temperature: Annotated[
        float | None, Option("--temperature", "-t", help="0 = greedy. Default 1.", rich_help_panel=_PANEL)
    ] = None
    top_k: Annotated[int, Whole(help="Only the k most probable tokens; 0 = all.", rich_help_panel=_PANEL)] = 0
    top_p: Annotated[
        float | None,
        Option(help="Only the most probable that together reach it. Default 1.", rich_help_panel=_PANEL),
    ] = None
    min_p: Annotated[
        float,
        Option(help="Only tokens so many times as probable as the first. Default 0.", rich_help_panel=_PANEL),
    ] = 0.0
    repetition_penalty: Annotated[
        float | None,
        Option(help="Above 1 makes what occurred less probable. Default 1.", rich_help_panel=_PANEL),
    ] = None
    seed: Annotated[
        int | None,
        Option(
            min=0,
            max=(1 << 64) - 1,
            help="Same seed, same text. Default: a random one.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    stop: Annotated[
        list[str] | None, Option(help="A string that ends the text, repeated.", rich_help_panel=_PANEL)
    ] = None
    max_tokens: Annotated[
        int | None, Whole("--max-tokens", "-n", help="Most tokens. Default 256.", rich_help_panel=_PANEL)
    ] = None
    min_tokens: Annotated[
        int, Whole(help="Fewest tokens before the model may end. Default 0.", rich_help_panel=_PANEL)
    ] = 0
    logprobs: Annotated[
        int | None,
        Whole(help="Show each token's probability, and of so many others.", rich_help_panel=_PANEL),
    ] = None
    schema: Annotated[
        Path | None,
        Option(help="File with a JSON schema that the text must satisfy.", rich_help_panel=_PANEL),
    ] = None

    def message(self) -> inference_pb2.SamplingOptions:
        """Returns the options as the contract has them. Raises CliError if the schema cannot be read."""
        chosen: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        if "logprobs" in chosen:
            chosen["num_logprobs"] = chosen.pop("logprobs")
        if "schema" in chosen:
            chosen["json_schema"] = read(chosen.pop("schema"))
        return sampling_options(**chosen)
