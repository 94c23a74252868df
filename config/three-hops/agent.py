"""An agent that asks the next one: ``agent.py PORT [METHOD URL]``. It sends back the header that it received."""

import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Agent(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        told = f"{self.headers['Delegation-Actor']} asks for {self.headers['Delegation-Subject']}\n".encode()
        status, more = ask_next(self.headers["Authorization"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(told + more)))
        self.end_headers()
        self.wfile.write(told + more)

    def do_GET(self) -> None:
        self.do_POST()


def ask_next(handle: str) -> tuple[int, bytes]:
    """Call the next agent through the sidecar, as part of the request that ``handle`` stands for."""
    if len(sys.argv) < 4:
        return 200, b""
    call = urllib.request.Request(sys.argv[3], method=sys.argv[2], headers={"Authorization": handle})
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
