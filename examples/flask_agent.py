"""An agent with Flask and requests. It asks the CRM, behind another sidecar, for the user whose request it serves.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python flask_agent.py
"""

import os

import requests
from delegation_agent.requests import Adapter
from delegation_agent.wsgi import HandleMiddleware
from flask import Flask

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm"

session = requests.Session()
session.mount("http://", Adapter())
app = Flask(__name__)
app.wsgi_app = HandleMiddleware(app.wsgi_app)


@app.post("/ask")
def ask() -> dict[str, str]:
    """Answer from the customer's record."""
    customer = session.get(f"{CRM}/customers/42", timeout=10)
    customer.raise_for_status()
    return {"answer": customer.text}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
