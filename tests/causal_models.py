"""Small causal language models with random weights and a byte-level tokenizer, as base models lie on disk."""

import random
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
EOS = "<|end|>"
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_NOUNS = "cat dog bird fish tree house river road letter window garden sister doctor".split()
_VERBS = "sees likes meets finds draws paints follows remembers visits".split()


def sentence(dice: random.Random) -> str:
    """Returns a sentence of a language so small that a small model can learn it."""
    noun, verb, other = dice.choice(_NOUNS), dice.choice(_VERBS), dice.choice(_NOUNS)
    return f"The {noun} {verb} the {other}, and the {other} {verb} the {noun}."


def documents(count: int, *, seed: int = 0, longest: int = 6) -> list[str]:
    """Returns documents of 1 to `longest` sentences, no two alike."""
    dice = random.Random(seed)
    return [
        f"Part {i}. " + " ".join(sentence(dice) for _ in range(dice.randint(1, longest)))
        for i in range(count)
    ]


def save_gpt2(folder: Path, *, positions: int = 128) -> Path:
    """Writes a GPT-2 of two narrow layers whose tokenizer has no padding token and no chat template."""
    tokenizer = _tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=positions,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **_ends(tokenizer),
    )
    return _save(transformers.GPT2LMHeadModel(config), tokenizer, folder)


def save_llama(folder: Path, *, positions: int = 128) -> Path:
    """Writes a Llama of two narrow layers, with a chat template, whose tokenizer begins texts with <s>."""
    tokenizer = _tokenizer(bos="<s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        intermediate_size=64,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        **_SMALL,
        **_ends(tokenizer),
    )
    return _save(transformers.LlamaForCausalLM(config), tokenizer, folder)


def _tokenizer(bos: str = "") -> transformers.PreTrainedTokenizerFast:
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = [EOS, *filter(None, [bos]), "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(documents(50), trainer)
    if bos:
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, fast.token_to_id(bos))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=EOS, bos_token=bos or None)


def _ends(tokenizer: transformers.PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}


def _save(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast, folder: Path
) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def seeded(seed: int = 3) -> None:
    """Makes the next models' weights the same each time."""
    torch.manual_seed(seed)
