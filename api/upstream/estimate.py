"""Tokens, where nobody counted them."""

from collections.abc import Iterator
from typing import Any

from api.upstream.exchange import Ask, Usage

BYTES_PER_TOKEN = 4
"""What tokenizers reach on English text. Of scripts with several bytes to a letter they make more tokens per letter."""


def estimated_usage(ask: Ask, output_characters: int) -> Usage:
    return Usage(estimated_input_tokens(ask), _tokens(output_characters), estimated=True)


def estimated_input_tokens(ask: Ask) -> int:
    return _tokens(
        _size(ask.instructions or "") + sum(map(_size, _texts(ask.items))) + sum(map(_size, _texts(ask.tools)))
    )


def estimated_tokens(items: list[Any]) -> int:
    return _tokens(sum(map(_size, _texts(items))))


def text_of(ask: Ask) -> str:
    """Everything that the model reads, without its form."""
    return "\n".join([ask.instructions or "", *_texts(ask.items), *_texts(ask.tools)])


def has_media(ask: Ask) -> bool:
    """Whether there is something to read that is no text."""
    return any(
        part["type"] in ("input_image", "input_file")
        for item in ask.items
        for content in (item.get("content"), item.get("output"))
        if isinstance(content, list)
        for part in content
    )


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """What a model reads of this JSON: its text, without ids, types and the bytes of images and files."""
    match value:
        case str():
            yield value
        case list():
            for part in value:
                yield from _texts(part)
        case dict():
            for key, part in value.items():
                if key not in _NOT_READ:
                    yield from _texts(part)


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


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)
