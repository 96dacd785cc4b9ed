"""Small tokenizers whose templates write turns as published families do."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from jaxdistill.data.text import file_tokenizer
from jaxdistill.records import Message
from jaxdistill.records.chats import chat
from jaxdistill.records.templates import template_of

TEXTS = [
    "How many legs has a spider? A spider has eight legs, an insect has six.",
    "You are a helpful teacher. Let me think about it: two and three are five.",
    "Straßen und Plätze, 数学の問題, naïve café; x = 2 * (3 + 4)\n\nprint(x)",
]
CONVERSATION = (
    Message("user", "How many legs has a spider?"),
    Message("assistant", "Eight.", learn=True),
    Message("user", "  And an insect? 数学\n"),
    Message("assistant", "<think>\nAn insect has six.\n</think>\n\nSix legs.", learn=True),
)
_LLAMA = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
_QWEN = """{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.role == 'assistant' and '</think>' in message.content %}
        {%- set parts = message.content.split('</think>') %}
        {%- if loop.index0 > ns.last %}
            {{- '<think>\n' + parts[0].split('<think>')[-1].strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- parts[-1].lstrip('\n') }}
    {%- else %}
        {{- message.content }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""
_GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}"""
_MISTRAL = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token }}
    {%- else %}
        {{- raise_exception('only user and assistant') }}
    {%- endif %}
{%- endfor %}"""
# The template, its special tokens, what ends a text, what ends a turn, whether it is byte-level.
FAMILIES = {
    "llama": (
        _LLAMA,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
        + ["<|eot_id|>"],
        ("<|begin_of_text|>", "<|end_of_text|>"),
        "<|eot_id|>",
        True,
    ),
    "qwen": (
        _QWEN,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        (None, "<|im_end|>"),
        "<|im_end|>",
        True,
    ),
    "gemma": (
        _GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        ("<bos>", "<eos>"),
        "<end_of_turn>",
        False,
    ),
    # Its [INST] are no special tokens, as in the first one that was published.
    "mistral": (_MISTRAL, ["<s>", "</s>"], ("<s>", "</s>"), "</s>", False),
}


def write_tokenizer(folder, family):
    """A folder as a published tokenizer has it."""
    source, special, (start, end), _, by_bytes = FAMILIES[family]
    if by_bytes:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        size = len(alphabet) + 120
    else:
        made = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet, size = [], 420
    pieces = [] if by_bytes else [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False,
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in special] + pieces,
    )  # fmt: skip
    made.train_from_iterator(TEXTS * 3, trainer)
    definition = json.loads(made.to_str())
    # Bytes are words of the vocabulary, and thinking tags are tokens that are not special.
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] in special]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    said = {"chat_template": source, "eos_token": end}
    if start:
        said["bos_token"] = {"content": start}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def chat_of(folder, family):
    write_tokenizer(folder, family)
    return chat(file_tokenizer(path=folder), template_of(folder))
