"""Receives the body of a request into a temporary file, within limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from timesformer_runtime.errors import named
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.serve.engine import Place
from timesformer_runtime.serve.service import Service

with needs_extra("serve"):
    from fastapi import HTTPException, Request
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

_PIECE = 1 << 20  # bytes that are written at a time
_MOST_HEADERS = 16  # of one part of a form
_LONGEST_NAME = 200


@dataclasses.dataclass(frozen=True)
class Upload:
    """A body that has arrived.

    Attributes:
        path: The temporary file.
        name: The client's own name for it, for messages; never a path that anything opens.
        store_end: Writes the last piece. The thread that reads the file calls it first; it raises
            HTTPException if the disk is full.
    """

    path: Path
    name: str
    store_end: Callable[[], None]


class _Writer(Protocol):
    """Takes the bytes of a body, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Takes the next bytes."""


async def receive_video(request: Request, place: Place, service: Service) -> Upload:
    """Receives a video: the body as it is, or the file in a form.

    Raises:
        HTTPException: The body is empty, too large, too slow, or not a form with one file.
        ClientDisconnect: The client has left.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        form = _Form(options.get(b"boundary", b""))
        upload = await receive_body(request, place, service, form.into)
        # The name may be at the end of the form.
        await service.engine.in_writer_thread(place, upload.store_end)
        return Upload(upload.path, form.name_of_file(), lambda: None)
    return await receive_body(request, place, service)


async def receive_body(
    request: Request,
    place: Place,
    service: Service,
    writer_for: Callable[[_Writer], _Writer] = lambda file: file,
) -> Upload:
    """Receives a body into a file that is removed when the request's place is free.

    Raises:
        HTTPException: The body is empty, too large or too slow.
        ClientDisconnect: The client has left.
    """
    settings = service.settings
    _check_headers(request, settings.max_upload)
    file = _NewFile(service.folder / secrets.token_hex())
    place.clean_later(file.remove)
    writer = writer_for(file)
    waiting = bytearray()
    count = 0
    try:
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():
                count += len(chunk)
                if count > settings.max_upload:
                    raise _too_large(settings.max_upload)
                waiting += chunk
                if len(waiting) >= _PIECE:  # few calls write the body
                    piece = bytes(waiting)
                    waiting.clear()
                    await service.engine.in_writer_thread(place, _store, piece, writer)
    except TimeoutError as error:
        raise HTTPException(
            408,
            f"the body did not arrive within {settings.upload_seconds:g} seconds; send a smaller "
            "video, or over a faster network",
        ) from error
    if count == 0:
        raise HTTPException(400, "the body is empty; send the bytes of a video")

    def store_end() -> None:
        with _storing():
            writer.write(bytes(waiting))
            file.finish()

    return Upload(file.path, "upload", store_end)


class _NewFile:
    """A file that is made when its first bytes are written, in the thread that writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Adds bytes."""
        if self._file is None:
            self._file = self.path.open("xb")
        self._file.write(data)

    def finish(self) -> None:
        """Closes the file, and makes it first where no byte came: a form may have an empty one."""
        self.write(b"")
        self.close()

    def close(self) -> None:
        """Closes the file, which writes what is left in its buffer."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Closes the file, and removes it."""
        with contextlib.suppress(OSError):  # the disk may be full
            self.close()
        with contextlib.suppress(OSError):  # the answer is right all the same
            self.path.unlink(missing_ok=True)


def _store(piece: bytes, writer: _Writer) -> None:
    with _storing():
        writer.write(piece)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HTTPException(507, f"the body cannot be stored: {error.strerror}") from error


def _check_headers(request: Request, most: int) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(
            415, f"Content-Encoding is {named(encoding)}; send the bytes as they are"
        )
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {most} bytes; send a smaller video")


class _Form:
    """Writes the one file of a form to a file, and drops all other fields."""

    def __init__(self, boundary: bytes) -> None:
        self._file: _Writer | None = None
        self._names: list[str] = []
        self._is_video = False
        self._is_whole = False
        self._field, self._value = b"", b""
        self._disposition = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_to_field,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take,
                    "on_end": self._end,
                },
                max_header_count=_MOST_HEADERS,
            )
        except FormParserError as error:
            raise _not_a_form(str(error)) from error

    def into(self, file: _Writer) -> _Form:
        """Sets the file to write to."""
        self._file = file
        return self

    def write(self, data: bytes) -> None:
        """Takes the next bytes of the form.

        Raises:
            HTTPException: They are not those of a form.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _not_a_form(str(error)) from error

    def name_of_file(self) -> str:
        """The client's name of the file, after the last byte.

        Raises:
            HTTPException: The form is cut short, or does not have exactly one file.
        """
        if not self._is_whole:
            raise _not_a_form("its end is missing")
        if len(self._names) != 1:
            raise _not_a_form(f"it has {len(self._names)} files")
        return self._names[0]

    def _begin(self) -> None:
        self._disposition = b""
        self._is_video = False

    def _add_to_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name is not None:
            text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
            self._names.append(text[:_LONGEST_NAME] or "upload")
            self._is_video = len(self._names) == 1

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._is_video and self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._is_whole = True


def _not_a_form(reason: str) -> HTTPException:
    return HTTPException(
        400, f"the body is not a form with one file ({named(reason)}); send one, or the bytes alone"
    )
