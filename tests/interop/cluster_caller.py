"""Users in a pod who log in and call the front app, run by ``python3 -c``. Prints a line of JSON for every answer.

``ask QUESTION`` asks once, ``get URL`` reads a page, ``load RATE`` asks at this rate until standard input ends.
Standard library only.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

CALLS_PER_TOKEN = 10
QUESTION = {"question": "When does Globex renew?", "customer": "42"}


def log_in(user: str = "alice") -> str:
    form = {"grant_type": "password", "username": user, "password": "", "client_id": "front-app", "scope": "assistant"}
    context = ssl._create_unverified_context()  # like `curl -k`: its certificate names no host
    connection = http.client.HTTPSConnection("login.login.svc", 7300, timeout=10, context=context)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/token", urlencode(form), headers)
    return str(json.loads(connection.getresponse().read())["access_token"])


def ask(token: str, **question: str) -> dict[str, Any]:
    """Ask once. Status 0 is not an answer at all."""
    began = time.time()
    connection = http.client.HTTPConnection("front.agents.svc", 8080, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", "/ask", json.dumps({**QUESTION, **question}), headers)
        response = connection.getresponse()
        return {"at": began, "status": response.status, "body": json.loads(response.read() or b"{}")}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"at": began, "status": 0, "body": {"error": repr(error)}}
    finally:
        connection.close()


def load(rate: float) -> None:
    """Run independent callers: a slow answer delays no other call."""
    told = threading.Lock()
    ended = threading.Event()
    threading.Thread(target=_until_the_end_of_input, args=(ended,), daemon=True).start()
    tokens, calls = [log_in()], list[threading.Thread]()

    def one() -> None:
        if len(calls) % CALLS_PER_TOKEN == 0:  # another user logs in, which needs exchanges
            tokens.append(log_in())
        answer = ask(tokens[-1])
        with told:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    while not ended.wait(1 / rate):
        calls.append(threading.Thread(target=one))
        calls[-1].start()
    for call in calls:
        call.join()


def _until_the_end_of_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def get(url: str) -> dict[str, Any]:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
            return {"status": response.status, "body": response.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        asked = json.loads(sys.argv[2])
        sys.stdout.write(json.dumps(ask(log_in(asked.pop("user", "alice")), **asked)) + "\n")
    elif sys.argv[1] == "get":
        sys.stdout.write(json.dumps(get(sys.argv[2])) + "\n")
    else:
        load(float(sys.argv[2]))
