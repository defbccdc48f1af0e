"""Receives the body of a request into a temporary file, within limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from timesformer_runtime.errors import named
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.serve.form import Form
from timesformer_runtime.serve.place import Place
from timesformer_runtime.serve.service import Service

with needs_extra("serve"):
    from fastapi import HTTPException, Request
    from python_multipart.multipart import parse_options_header

_PIECE = 1 << 20  # bytes that are written at a time


class Upload:
    """A body that has arrived, the end of which is perhaps not on the disk yet.

    Attributes:
        name: The client's own name for it, for messages; never a path that anything opens.
    """

    def __init__(self, file: _NewFile, name: str, end: bytes | bytearray) -> None:
        self.name = name
        self._file = file
        self._end = end
        self._is_stored = False

    @property
    def names(self) -> dict[str, str]:
        """For the path, which messages may have, the name to write in its place."""
        return {str(self._file.path): self.name}

    def stored(self) -> Path:
        """Gives the file, complete; writes its end first: call it in the thread that reads it.

        Raises:
            HTTPException: The disk is full.
        """
        if not self._is_stored:
            with storing():
                self._file.write(self._end)
                self._file.close()
            self._is_stored = True
        return self._file.path


async def receive_video(request: Request, place: Place, service: Service) -> Upload:
    """Receives a video: the body as it is, or the file in a form.

    Raises:
        HTTPException: The body is empty, too large, too slow, or not a form with one file.
        ClientDisconnect: The client has left.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        return await receive_body(request, place, service)
    file = _new_file(place, service)
    form = Form(options.get(b"boundary", b""), file)
    end = await _receive(request, place, service, form)
    # The name may be at the end of the form.
    await service.engine.in_writer_thread(place, _store, end, form)
    return Upload(file, form.name_of_file(), b"")


async def receive_body(request: Request, place: Place, service: Service) -> Upload:
    """Receives a body into a file that is removed when the request's place is free.

    Raises:
        HTTPException: The body is empty, too large or too slow.
        ClientDisconnect: The client has left.
    """
    file = _new_file(place, service)
    return Upload(file, "upload", await _receive(request, place, service, file))


def _new_file(place: Place, service: Service) -> _NewFile:
    file = _NewFile(service.new_path())
    place.clean_later(file.remove)
    return file


async def _receive(
    request: Request, place: Place, service: Service, writer: _NewFile | Form
) -> bytearray:
    """Receives a body, and gives its end, which is not written yet."""
    settings = service.settings
    _check_headers(request, settings.max_upload)
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
                    piece, waiting = waiting, bytearray()
                    await service.engine.in_writer_thread(place, _store, piece, writer)
    except TimeoutError as error:
        raise HTTPException(
            408,
            f"the body did not arrive within {settings.upload_seconds:g} seconds; send a smaller "
            "video, or over a faster network",
        ) from error
    if count == 0:
        raise HTTPException(400, "the body is empty; send the bytes of a video")
    return waiting


class _NewFile:
    """A file that is made when it is first written to, in the thread that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def write(self, data: bytes | bytearray) -> None:
        """Adds bytes."""
        if self._file is None:
            self._file = self.path.open("xb")
        self._file.write(data)

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


def _store(piece: bytearray, writer: _NewFile | Form) -> None:
    with storing():
        writer.write(piece)


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Turns an error of the disk into an answer.

    Raises:
        HTTPException: In place of the error.
    """
    try:
        yield
    except OSError as error:
        raise HTTPException(
            507,
            f"the body cannot be stored: {error.strerror}; send a smaller video, or try later",
        ) from error


def _check_headers(request: Request, most: int) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise HTTPException(
            415, f"Content-Encoding is {named(encoding)}; send the bytes as they are"
        )
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {most} bytes; send a smaller video")
