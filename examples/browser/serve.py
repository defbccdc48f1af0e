"""Serves the folder that site.js made, with the headers that the page needs, on this machine only.

python serve.py FOLDER [PORT]
"""

import argparse
import contextlib
import functools
import http.server
from pathlib import Path

HEADERS = {
    # Threads of WebAssembly share memory, which browsers allow only on isolated pages.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # The browser itself refuses to send anything to another host.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "worker-src 'self' blob:; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-cache",
}


# Some systems name other types for these, with which browsers refuse to run the files.
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, each with the headers."""

    def end_headers(self) -> None:
        """Adds the headers to those of the file."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()


def main() -> None:
    """Serves until Ctrl-C; exit code 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that site.js made")
    parser.add_argument("port", type=int, nargs="?", default=8000)
    arguments = parser.parse_args()
    if not (arguments.folder / "index.html").is_file():
        parser.error(f"{arguments.folder} has no index.html; make it with: npm run site")
    Handler.extensions_map.update(TYPES)
    handler = functools.partial(Handler, directory=arguments.folder)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)
    except (OSError, OverflowError) as error:
        parser.error(f"port {arguments.port}: {error}; name another one")
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"http://localhost:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
