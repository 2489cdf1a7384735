"""Tokens, where nobody counted them."""

from typing import Any

from api.upstream.exchange import Ask, Usage

CHARACTERS_PER_TOKEN = 4
"""What tokenizers reach on English text."""


def estimated_usage(ask: Ask, output_characters: int) -> Usage:
    return Usage(estimated_input_tokens(ask), _tokens(output_characters), estimated=True)


def estimated_input_tokens(ask: Ask) -> int:
    return _tokens(len(ask.instructions or "") + sum(map(_characters, ask.items)) + _characters(ask.tools))


def _characters(value: Any) -> int:  # noqa: ANN401 - any JSON
    """What a model reads of this JSON: its text, without ids, types and the bytes of images and files."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_characters, value))
        case dict():
            return sum(_characters(part) for key, part in value.items() if key not in _NOT_READ)
        case _:
            return 0


_NOT_READ = {
    "id",
    "type",
    "role",
    "status",
    "call_id",
    "image_url",
    "file_data",
    "file_url",
    "detail",
    "encrypted_content",
}


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
