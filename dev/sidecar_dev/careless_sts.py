"""A token service that answers 200 and ignores ``actor_token``, as some products do. For the demo only.

The demo shows how the sidecar treats such an answer: the token is genuine, signed, for the right audience and subject,
and names no actor.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import signal
import sys
import time
from urllib.parse import parse_qs

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sidecar.background import Parts
from sidecar.identity.tls import server_context
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings


def issue(form: bytes, issuer: str, key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
    """Answer an exchange: grant the request as it is, with the user as the subject and no actor."""
    fields = {name: values[0] for name, values in parse_qs(form.decode("ascii")).items()}
    payload = fields["subject_token"].split(".")[1]
    login = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": login["sub"],
        "sub_id": {"format": "iss_sub", "iss": login["iss"], "sub": login["sub"]},
        "aud": fields["audience"],
        "scope": fields.get("scope", ""),
        "client_id": "front-app",
        "iat": now,
        "exp": now + 60,
        "jti": secrets.token_urlsafe(16),
    }
    return {
        "access_token": jwt.encode(claims, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "careless"}),
        "issued_token_type": fields.get("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        "token_type": "Bearer",
        "expires_in": 60,
        "scope": fields.get("scope", ""),
    }


def application(issuer: str) -> web.Application:
    """Make the application with the token and key endpoints."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "careless", "use": "sig", "alg": "ES256"}
    public.pop("key_ops", None)

    async def token(request: web.Request) -> web.Response:
        return web.json_response(issue(await request.read(), issuer, key))

    async def jwks(_request: web.Request) -> web.Response:
        return web.json_response({"keys": [public]})

    app = web.Application()
    app.router.add_post("/token", token)
    app.router.add_get("/jwks", jwks)
    return app


async def _serve(socket: str, listen: str, issuer: str) -> None:
    source = WorkloadApiSource(WorkloadApiSettings(address=f"unix://{socket}"))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    background = Parts()
    background.start("identity", source.run())
    runner = web.AppRunner(application(issuer), access_log=None)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    await web.TCPSite(runner, host, int(port), ssl_context=server_context(source)).start()
    try:
        await background.run_until(ended)
    finally:
        await runner.cleanup()
        await background.close()


def main() -> int:
    """Serve until stopped: ``python -m sidecar_dev.careless_sts --socket PATH --listen HOST:PORT``."""
    parser = argparse.ArgumentParser(prog="careless-sts")
    parser.add_argument("--socket", required=True, metavar="PATH", help="the Workload API")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--issuer", metavar="URL", help="its issuer identifier (default: where it listens)")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.socket, arguments.listen, arguments.issuer or f"https://{arguments.listen}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
