"""A labelled set of files with planted credentials and decoys, drawn from a seed; no such value is committed.

Every value is drawn when the set is made. The decoys are what files really hold beside secrets: placeholders, names of
secrets, digests, identifiers, public keys, short-lived tokens, encrypted values.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

NOW: Final = 1_790_000_000  # 2026-09-21
_ALNUM: Final = string.ascii_letters + string.digits
_HEX: Final = "0123456789abcdef"
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Planted:
    """A credential in a file: the kind it must be found as, and the secret that no output may show."""

    file: str
    kind: str
    secret: str


@dataclass(frozen=True)
class Value:
    """A named value. ``kind`` is None for a decoy; ``secret`` is the part that is one, by default all of it."""

    name: str
    text: str
    kind: str | None = None
    secret: str = ""


Draw = Callable[[random.Random], Value]
File = tuple[str, str]
Format = Callable[[random.Random, list[Value]], File]


def text(rng: random.Random, length: int, alphabet: str = _ALNUM) -> str:
    """Draw a text; it has a digit and a letter of each case where the alphabet has them."""
    while True:
        drawn = "".join(rng.choices(alphabet, k=length))
        digits = any(map(str.isdigit, drawn)) or not any(map(str.isdigit, alphabet))
        if digits and len(set(drawn)) > min(6, length // 2):
            return drawn


def _jwt(rng: random.Random, claims: dict[str, object]) -> str:
    parts = ({"alg": "RS256", "kid": text(rng, 8)}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join((*encoded, text(rng, 86)))


def _whole(name: str, kind: str, draw: Callable[[random.Random], str]) -> Draw:
    def value(rng: random.Random) -> Value:
        drawn = draw(rng)
        return Value(name, drawn, kind, drawn)

    return value


def _basic_header(rng: random.Random) -> Value:
    password = text(rng, 16)
    encoded = base64.b64encode(f"agent:{password}".encode()).decode()
    return Value("AUTHORIZATION", f"Basic {encoded}", "basic-credentials", password)


def _url(name: str, kind: str, scheme: str, host: str) -> Draw:
    def value(rng: random.Random) -> Value:
        password = text(rng, 16)
        return Value(name, f"{scheme}://agent:{password}@{host}/main", kind, password)

    return value


def _long_jwt(rng: random.Random) -> Value:
    token = _jwt(rng, {"sub": "agent", "iat": NOW - 1000, "exp": NOW + 400 * 86400})
    return Value("CRM_BEARER", token, "bearer-token", token)


def _endless_jwt(rng: random.Random) -> Value:
    token = _jwt(rng, {"sub": "agent", "role": "service"})
    return Value("MEMORY_JWT", token, "bearer-token", token)


def _opaque_bearer(rng: random.Random) -> Value:
    token = text(rng, 40)
    return Value("CRM_HEADER", f"Bearer {token}", "bearer-token", token)


def _key_in_query(rng: random.Random) -> Value:
    key = text(rng, 32)
    return Value("SEARCH_URL", f"https://search.internal/v1/query?lang=en&api_key={key}", "api-key", key)


def _storage(rng: random.Random) -> Value:
    key = text(rng, 86) + "=="
    account = f"DefaultEndpointsProtocol=https;AccountName=agents;AccountKey={key};EndpointSuffix=core.windows.net"
    return Value("STORAGE_CONNECTION", account, "azure-key", key)


SECRETS: Final[tuple[Draw, ...]] = (
    _whole("OPENAI_API_KEY", "model-provider-key", lambda r: f"sk-proj-{text(r, 58)}T3Blbk" + f"FJ{text(r, 58)}"),
    _whole("ANTHROPIC_API_KEY", "model-provider-key", lambda r: f"sk-ant-api03-{text(r, 93)}AA"),
    _whole("GEMINI_KEY", "model-provider-key", lambda r: f"AIza{text(r, 35)}"),
    _whole("AZURE_OPENAI_API_KEY", "model-provider-key", lambda r: text(r, 32, _HEX)),
    _whole("MISTRAL_API_KEY", "model-provider-key", lambda r: text(r, 32)),
    _whole("COHERE_API_KEY", "model-provider-key", lambda r: text(r, 40)),
    _whole("HF_TOKEN", "model-provider-key", lambda r: f"hf_{text(r, 34, string.ascii_letters)}"),
    _whole("GROQ_API_KEY", "model-provider-key", lambda r: f"gsk_{text(r, 52)}"),
    _whole("AZURE_CLIENT_SECRET", "azure-key", lambda r: f"{text(r, 3)}8Q~{text(r, 34)}"),
    _storage,
    _whole("GITHUB_TOKEN", "git-host-token", lambda r: f"ghp_{text(r, 36)}"),
    _whole("GH_PAT", "git-host-token", lambda r: f"github_pat_{text(r, 22)}_{text(r, 59)}"),
    _whole("GITLAB_TOKEN", "git-host-token", lambda r: f"glpat-{text(r, 20)}"),
    _whole(
        "SLACK_BOT_TOKEN",
        "service-token",
        lambda r: f"xoxb-{text(r, 12, '123456789')}-{text(r, 12, '123456789')}-{text(r, 24)}",
    ),
    _whole("STRIPE_KEY", "service-token", lambda r: f"sk_live_{text(r, 24)}"),
    _whole("SENDGRID_API_KEY", "service-token", lambda r: f"SG.{text(r, 22)}.{text(r, 43)}"),
    _url("DATABASE_URL", "database-password", "postgresql", "db.internal:5432"),
    _url("CACHE_URL", "database-password", "rediss", "cache.internal:6379"),
    _whole("DB_PASSWORD", "database-password", lambda r: text(r, 18)),
    _url("CRM_URL", "basic-credentials", "https", "crm.internal"),
    _basic_header,
    _long_jwt,
    _endless_jwt,
    _opaque_bearer,
    _whole("OAUTH_CLIENT_SECRET", "oauth-client-secret", lambda r: text(r, 32)),
    _whole("CRM_API_KEY", "api-key", lambda r: text(r, 32)),
    _whole("SEARCH_TOKEN", "api-key", lambda r: text(r, 40, _HEX)),
    _key_in_query,
    _whole("ADMIN_PASSWORD", "password", lambda r: text(r, 16)),
)


def _plain_decoy(name: str, *values: str) -> Draw:
    return lambda rng: Value(name, rng.choice(values))


DECOYS: Final[tuple[Draw, ...]] = (
    _plain_decoy(
        "OPENAI_API_KEY", "changeme", "<your-key>", "sk-xxxxxxxxxxxxxxxxxxxxxxxx", "your-api-key-here", "sk-..."
    ),
    _plain_decoy("DB_PASSWORD", "changeme", "********", "CHANGE_ME", "replace-me", "password"),
    _plain_decoy("CLIENT_SECRET", "<client-secret>", "REPLACE_WITH_SECRET", "dummy-client-secret"),
    _plain_decoy("CRM_API_KEY", "${CRM_API_KEY}", "{{ .Values.crm.key }}", "$CRM_API_KEY", "${env:CRM_API_KEY}"),
    _plain_decoy(
        "SLACK_TOKEN", "vault:secret/data/agents#slack", "op://agents/slack/token", "ref+vault://agents/slack"
    ),
    _plain_decoy("STRIPE_KEY", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:stripe"),
    _plain_decoy("API_KEY_FILE", "/run/secrets/api_key", "/etc/agent/keys/api.key"),
    _plain_decoy("TOKEN_URL", "https://login.acme.example/oauth2/token"),
    _plain_decoy("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7" + "EXAMPLE"),
    _plain_decoy("MAX_TOKENS", "4096", "128000"),
    _plain_decoy("TOKENIZER", "cl100k_base", "o200k_base"),
    _plain_decoy("SECRET_NAME", "agent-credentials-v2"),
    lambda r: Value(
        "TENANT_ID",
        f"{text(r, 8, _HEX)}-{text(r, 4, _HEX)}-4{text(r, 3, _HEX)}-a{text(r, 3, _HEX)}-{text(r, 12, _HEX)}",
    ),
    lambda r: Value("GIT_COMMIT", text(r, 40, _HEX)),
    lambda r: Value("CONFIG_SHA256", text(r, 64, _HEX)),
    lambda r: Value("IMAGE_DIGEST", f"sha256:{text(r, 64, _HEX)}"),
    lambda r: Value("ASSET_INTEGRITY", f"sha512-{base64.b64encode(r.randbytes(64)).decode()}"),
    lambda r: Value("PUBLIC_KEY", f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{text(r, 43)}"),
    lambda r: Value("ADMIN_PASSWORD_HASH", f"$2b$12${text(r, 53)}"),
    lambda r: Value("SESSION_JWT", _jwt(r, {"sub": "alice", "iat": NOW - 60, "exp": NOW + 240})),
    lambda r: Value("OLD_JWT", _jwt(r, {"sub": "alice", "iat": NOW - 90 * 86400, "exp": NOW - 60 * 86400})),
    lambda r: Value(
        "SOPS_TOKEN", f"ENC[AES256_GCM,data:{text(r, 24)}=,iv:{text(r, 43)}=,tag:{text(r, 22)}==,type:str]"
    ),
    lambda r: Value("AWS_TEMPORARY", f"ASIA{text(r, 16, _BASE32)}"),
)


def _pairs(values: list[Value]) -> dict[str, str]:
    return {value.name: value.text for value in values}


def _deployment(kind: str, container: dict[str, object], metadata: dict[str, object] | None = None) -> str:
    spec = {"containers": [{"name": "agent", "image": "registry.acme.example/agent:1", **container}]}
    body = {"template": {"metadata": {"labels": {"app": "agent"}}, "spec": spec}}
    return yaml.safe_dump(
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "agent", **(metadata or {})}, "spec": body}
    )


def _env(rng: random.Random, values: list[Value]) -> File:
    listed: list[object] = [{"name": value.name, "value": value.text} for value in values]
    listed.append({"name": "PAGER_TOKEN", "valueFrom": {"secretKeyRef": {"name": "pager", "key": "api-token"}}})
    return "deployment.yaml", _deployment(rng.choice(("Deployment", "StatefulSet")), {"env": listed})


def _args(rng: random.Random, values: list[Value]) -> File:
    args = [f"--{value.name.lower().replace('_', '-')}={value.text}" for value in values]
    return "job.yaml", _deployment("Job", {"command": ["/agent"], "args": args})


def _annotations(rng: random.Random, values: list[Value]) -> File:
    notes = {f"agents.acme.example/{value.name.lower().replace('_', '-')}": value.text for value in values}
    return "annotated.yaml", _deployment("DaemonSet", {}, {"annotations": notes})


def _secret_data(rng: random.Random, values: list[Value]) -> File:
    data = {value.name: base64.b64encode(value.text.encode()).decode() for value in values}
    return "secret.yaml", yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": data}
    )


def _string_data(rng: random.Random, values: list[Value]) -> File:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "stringData": _pairs(values)}
    return "secrets.yaml", "---\n" + yaml.safe_dump(secret) + "---\n" + yaml.safe_dump({**secret, "stringData": {}})


def _config_map(rng: random.Random, values: list[Value]) -> File:
    inner = "\n".join(f"{value.name}={value.text}" for value in values)
    document = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  agent.env: |\n" + "".join(
        f"    {line}\n" for line in inner.split("\n")
    )
    return "configmap.yaml", document


def _helm(rng: random.Random, values: list[Value]) -> File:
    settings = {value.name.lower(): value.text for value in values}
    return "chart/values.yaml", yaml.safe_dump({"image": {"tag": "1.2.3"}, "agent": {"config": settings}})


def _compose_map(rng: random.Random, values: list[Value]) -> File:
    return "compose.yaml", yaml.safe_dump({"services": {"agent": {"image": "agent", "environment": _pairs(values)}}})


def _compose_list(rng: random.Random, values: list[Value]) -> File:
    listed = [f"{value.name}={value.text}" for value in values]
    return "docker-compose.yml", yaml.safe_dump({"services": {"agent": {"build": ".", "environment": listed}}})


def _env_file(rng: random.Random, values: list[Value]) -> File:
    quote = rng.choice(("", '"', "'"))
    lines = (f"{rng.choice(('', 'export '))}{value.name}={quote}{value.text}{quote}" for value in values)
    return rng.choice((".env", "agent.env", ".env.production")), "# settings\n" + "\n".join(lines) + "\n"


def _mcp_env(rng: random.Random, values: list[Value]) -> File:
    server = {"command": "npx", "args": ["-y", "@acme/server"], "env": _pairs(values)}
    return rng.choice((".mcp.json", "claude_desktop_config.json")), json.dumps(
        {"mcpServers": {"crm": server}}, indent=2
    )


def _mcp_headers(rng: random.Random, values: list[Value]) -> File:
    headers = {f"X-{value.name.replace('_', '-').title()}": value.text for value in values}
    document = json.dumps({"servers": {"crm": {"type": "http", "url": "https://mcp.internal/mcp", "headers": headers}}})
    return ".vscode/mcp.json", document.replace('{"servers"', '{\n  // our servers\n  "servers"')


def _mcp_args(rng: random.Random, values: list[Value]) -> File:
    args = [part for value in values for part in ("-e", f"{value.name}={value.text}")]
    return ".cursor/mcp.json", json.dumps(
        {"mcpServers": {"crm": {"command": "docker", "args": ["run", *args]}}}, indent=1
    )


def _actions(rng: random.Random, values: list[Value]) -> File:
    job = {
        "runs-on": "ubuntu-latest",
        "env": _pairs(values),
        "steps": [{"run": "make", "env": {"A": "${{ secrets.A }}"}}],
    }
    return ".github/workflows/deploy.yml", yaml.safe_dump({"name": "deploy", "on": ["push"], "jobs": {"deploy": job}})


def _script(rng: random.Random, values: list[Value]) -> File:
    script = "".join(f"      export {value.name}={value.text}\n" for value in values)
    return ".gitlab-ci.yml", f"deploy:\n  image: alpine\n  script:\n    - |\n{script}      make deploy\n"


def _circle(rng: random.Random, values: list[Value]) -> File:
    job = {"docker": [{"image": "cimg/base:2026.01"}], "environment": _pairs(values), "steps": ["checkout"]}
    return ".circleci/config.yml", yaml.safe_dump({"version": 2.1, "jobs": {"build": job}})


def _jenkins(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f"    {value.name} = '{value.text}'" for value in values)
    return "Jenkinsfile", f"pipeline {{\n  agent any\n  environment {{\n{lines}\n  }}\n}}\n"


def _python(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f'{value.name} = "{value.text}"' for value in values)
    return "agent.py", f'import os\n\n{lines}\ntoken = os.environ["TOKEN"]\npassword = get_password(user, 12)\n'


def _javascript(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f"  {value.name.lower()}: '{value.text}'," for value in values)
    return "config.js", f"const apiKey = process.env.API_KEY1;\nexport const config = {{\n{lines}\n}};\n"


def _properties(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f"agent.{value.name.lower().replace('_', '-')}={value.text}" for value in values)
    return "application.properties", f"server.port=8080\n{lines}\n"


def _toml(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f'{value.name} = "{value.text}"' for value in values)
    return "config.toml", f'model = "large"\n\n[mcp_servers.crm.env]\n{lines}\n'


def _notes(rng: random.Random, values: list[Value]) -> File:
    lines = "\n".join(f"    export {value.name}={value.text}" for value in values)
    return "README.md", f"# Agent\n\nSet it up:\n\n{lines}\n\nPass `--api-key KEY` or set the password in the vault.\n"


FORMATS: Final[tuple[Format, ...]] = (
    *(_env, _args, _annotations, _secret_data, _string_data, _config_map, _helm, _compose_map, _compose_list),
    *(_env_file, _mcp_env, _mcp_headers, _mcp_args, _actions, _script, _circle, _jenkins, _python, _javascript),
    *(_properties, _toml, _notes),
)


def _mixed(rng: random.Random, files: int) -> Iterator[tuple[File, list[Value]]]:
    """Yield files of every format with secrets and decoys; each secret of the list occurs equally often."""
    pool: list[Draw] = []
    for number in range(files):
        if len(pool) < len(FORMATS):
            pool += rng.sample(SECRETS, len(SECRETS))
        draws = [pool.pop(0) for _ in range(rng.randint(0, 4))] + rng.sample(DECOYS, rng.randint(2, 5))
        values = {value.name: value for value in (draw(rng) for draw in draws)}
        listed = list(values.values())
        rng.shuffle(listed)
        yield FORMATS[number % len(FORMATS)](rng, listed), listed


def make(folder: Path, seed: int, files: int = 150) -> list[Planted]:
    """Write the files below a folder and return what was planted."""
    from tests.audit.credentials.labelled_formats import special

    rng = random.Random(seed)
    planted: list[Planted] = []
    specials = list(special(rng))
    for number, ((name, content), values) in enumerate([*_mixed(rng, files - len(specials)), *specials]):
        path = folder / f"{number:03}" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        planted += [Planted(str(path), value.kind, value.secret) for value in values if value.kind is not None]
    return planted
