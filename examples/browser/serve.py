"""Serves the folder that site.js made, with the headers that the page needs, on this machine only.

python serve.py FOLDER [PORT]
"""

import functools
import http.server
import sys

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


if __name__ == "__main__":
    folder, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    Handler.extensions_map.update(TYPES)
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://localhost:{server.server_port}", flush=True)
        server.serve_forever()
