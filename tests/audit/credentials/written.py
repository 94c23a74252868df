"""Files as people write them, each with what it holds: a kind for each secret, in the order of their numbers.

``{1}`` is the first drawn secret and ``{1b}`` its base64; ``{pem}``, ``{pemb}`` and ``{gcpb}`` are a private key, its
base64 and that of a key file; ``{id}`` and ``{key}`` are an AWS key pair; ``{hex}`` are 32 hexadecimal digits.
"""

from __future__ import annotations

import base64
import json
import random
import string
from typing import Final, NamedTuple

from tests.audit.credentials.labelled import text


class Written(NamedTuple):
    """A file with the secrets in it, by kind."""

    path: str
    text: str
    secrets: list[tuple[str, str]]


_FILES: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    # --- Kubernetes
    (
        "kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nsecretGenerator:\n- name: a\n  literals:\n"
        "  - CRM_API_KEY={1}\n  - MODE=production\n",
        ("api-key",),
    ),
    (
        "templates/secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ .Release.Name }}-a\n{{- if .Values.x }}\ndata:\n"
        "  API_KEY: {1b}\n  OTHER: {{ .Values.o | b64enc }}\n{{- end }}\n",
        ("api-key",),
    ),
    ("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {value: {1b}}\n", ("api-key",)),
    (
        "kubeconfig",
        "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    username: admin\n    password: {1}\n",
        ("password",),
    ),
    (
        "kubeconfig.yaml",
        "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    client-key-data: {pemb}\n",
        ("private-key:pem",),
    ),
    (
        "args.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    spec:\n      containers:\n"
        "      - name: x\n        args: [--api-key, {1}, --verbose]\n",
        ("api-key",),
    ),
    (
        "references.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: x\n    env:\n"
        "    - name: API_KEY\n"
        "      valueFrom:\n        secretKeyRef: {name: crm-api-key-7f9c8b, key: api-key-v2}\n"
        "    envFrom: [{secretRef: {name: token-secret-abc123}}]\n",
        (),
    ),
    # --- containers and hosts
    (
        "docker-compose.yml",
        "services:\n  a:\n    image: x\n    command: ['serve', '--db-password', '{1}']\n",
        ("database-password",),
    ),
    ("Dockerfile", "FROM x\nENV ADMIN_PASSWORD {1}\nARG TOKEN\nENV PATH /usr/bin:/bin\n", ("password",)),
    ("agent.service", '[Service]\nEnvironment="CRM_API_KEY={1}"\nExecStart=/x\n', ("api-key",)),
    (".netrc", "machine crm.internal login agent password {1}\n", ("password",)),
    ("config.json", '{"auths": {"r.internal": {"auth": "{authb}"}}}', ("basic-credentials",)),
    (
        "login.sh",
        "docker login -u ci -p {1} registry.internal\ndocker run -p 8080:8080 x\nsshpass -p '{2}' ssh a@b\n",
        ("password", "password"),
    ),
    ("deploy.sh", "helm upgrade x ./x --set auth.adminPassword={1} --set image.tag=1.2.3\n", ("password",)),
    # --- code and settings
    ("init.sql", "CREATE USER agent WITH PASSWORD '{1}';\nSELECT password FROM users;\n", ("password",)),
    ("web.config", '<a><add key="ApiKey" value="{1}"/><add key="Mode" value="production"/></a>', ("api-key",)),
    ("settings.xml", "<server><username>ci</username><password>{1}</password></server>", ("password",)),
    (
        "a.py",
        'client = Client(api_key="{1}")\nother = Client(api_key=os.environ["API_KEY"])\n'
        'os.environ["SEARCH_TOKEN"] = "{2}"\n',
        ("api-key", "api-key"),
    ),
    ("go.go", 'cfg := Config{APIKey: "{1}", Name: "crm"}\ntoken := os.Getenv("TOKEN")\n', ("api-key",)),
    (
        "A.java",
        'String API_SECRET = "{1}";\nString password = request.getParameter("password");\n',
        ("api-key",),
    ),
    ("a.php", "<?php\ndefine('DB_PASSWORD', '{1}');\n$config['key'] = getenv('KEY');\n", ("database-password",)),
    ("notebook.ipynb", '{"cells": [{"source": ["import x\\n", "api_key = \\"{1}\\"\\n"]}]}', ("api-key",)),
    (
        "app.yaml",
        "clientSecret: {1}\nbotToken: {2}\ntokenSecret: crm-token-x7k2p\n",
        ("oauth-client-secret", "api-key"),
    ),
    ("commented.yaml", "# old password: {1}\nname: x\n", ("password",)),
    ("config.toml", '[openai]\napi_key = "{1}"\n\n[server]\nport = 80\n', ("api-key",)),
    ("spring.properties", "spring.datasource.username=a\nspring.datasource.password={1}\n", ("database-password",)),
    ("jdbc.properties", "url=jdbc:mysql://db:3306/x?user=a&password={1}\n", ("database-password",)),
    ("odbc.txt", "Driver=x;Server=db.internal;Uid=a;Pwd={1};\n", ("database-password",)),
    ("terraform.tfvars", 'db_password = "{1}"\nregion = "eu-west-1"\n', ("database-password",)),
    ("main.tf", 'provider "aws" {\n  access_key = "{id}"\n  secret_key = "{key}"\n}\n', ("aws-access-key:id",)),
    ("keys.json", '{"AccessKeyId": "{id}", "SecretAccessKey": "{key}"}', ("aws-access-key:id",)),
    ("values.yaml", "aws:\n  accessKeyId: {id}\n  secretAccessKey: {key}\n  region: eu\n", ("aws-access-key:id",)),
    ("gcp.env", "GOOGLE_CREDENTIALS={gcpb}\n", ("gcp-service-account-key:pem",)),
    (
        "keys.env",
        "OPENAI_KEY={hex}\nPRIMARY_KEY=id\nCACHE_KEY=user-profile-v2\nSORT_KEY=created_at\n",
        ("model-provider-key:hex",),
    ),
    ("llm.py", 'llm = ChatOpenAI("sk-{1}{2}")\n', ("model-provider-key:sk",)),
    (
        "ansible.yml",
        "- vars:\n    ansible_become_password: {1}\n"
        "    vaulted: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6231\n",
        ("password",),
    ),
    # --- clients and pipelines
    (
        "claude.json",
        '{"projects": {"/home/a": {"mcpServers": {"crm": {"command": "x", "env": {"CRM_TOKEN": "{1}"}}}}}}',
        ("api-key",),
    ),
    (
        ".cursor/mcp.json",
        '{"mcpServers": {"r": {"command": "npx", "args": ["-y", "mcp-remote", "https://x.internal/sse", "--header",'
        ' "Authorization: Bearer {1}"]}}}',
        ("bearer-token",),
    ),
    (
        "mcp.json",
        '{"inputs": [{"id": "t", "password": true}], "servers": {"r": {"url": "https://x.internal/mcp", "headers":'
        ' {"Authorization": "Bearer ${input:t}", "X-API-Key": "{1}"}}}}',
        ("api-key",),
    ),
    (
        ".github/workflows/ci.yml",
        "on: push\njobs:\n  a:\n    steps:\n    - uses: docker/login-action@v3\n"
        "      with: {username: x, password: {1}}\n"
        "    - run: echo ${{ secrets.TOKEN }}}\n      env: {GH_TOKEN: '${{ github.token }}}'}\n",
        ("password",),
    ),
    (
        ".gitlab-ci.yml",
        "variables:\n  DB_PASS: {1}\n  TOKEN: $CI_JOB_TOKEN\nbuild:\n  script: [make]\n",
        ("database-password",),
    ),
    (
        "Jenkinsfile",
        "environment { TOKEN = credentials('crm-token') }\nsh \"curl -u agent:{1} https://x.internal/\"\n",
        ("password",),
    ),
    # --- none
    ("de.json", '{"password": "Passwort", "token": "Zugangsschluessel", "forgotPassword": "Passwort vergessen?"}', ()),
    ("es.yaml", "password: contrasena\npassphrase: Contraseña\n", ()),
    ("package.json", '{"dependencies": {"my-secret-token": "1.2.3-beta.4", "password-utils": "^12.3.4"}}', ()),
    ("openapi.yaml", "properties:\n  password: {type: string, format: password}\n  token: {type: string}\n", ()),
    (
        "guide.md",
        "Use `Authorization: Bearer <token>` or Bearer authentication. Basic authentication is off.\n"
        "Set API_KEY=your_api_key and PASSWORD=yourpassword.\ncurl -u user:password https://api.internal\n",
        (),
    ),
    ("main2.tf", 'password = var.db_password\napi_key  = data.vault_generic_secret.a.data["key"]\n', ()),
    (
        "hashes.yaml",
        "admin_password: pbkdf2_sha256$260000$abcdefgh$abcdefghij=\ndb_password: '{SSHA}abcdefgh1234'\n",
        (),
    ),
    ("inserted.py", 'url = f"postgresql://agent:{password}@db/x"\nother = "https://agent:%s@host/" % password\n', ()),
    ("sops.env", "API_KEY=ENC[AES256_GCM,data:{1},iv:{2},type:str]\nsops_mac=ENC[AES256_GCM,data:x]\n", ()),
    ("requirements.txt", "a==1.0 \\\n    --hash=sha256:{hex}{hex}\n", ()),
    ("yarn.lock", '"a@^1":\n  version "1.0.0"\n  integrity sha512-{1}{2}==\n', ()),
)


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def written(rng: random.Random) -> list[Written]:
    """Return the files with secrets drawn for each."""
    return [_written(rng, *file) for file in _FILES]


def _written(rng: random.Random, path: str, form: str, kinds: tuple[str, ...]) -> Written:
    lines = "\n".join(text(rng, 64) for _ in range(20))
    pem = f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"
    certs = "https://www.googleapis.com/oauth2/v1/certs"
    gcp = {"type": "service_account", "private_key": pem, "client_email": "a@b", "auth_provider_x509_cert_url": certs}
    one, two = text(rng, 24), text(rng, 24)
    drawn = {
        "1": one,
        "1b": _base64(one),
        "2": two,
        "authb": _base64(f"bot:{one}"),
        "sk": f"sk-{one}{two}",
        "pem": pem,
        "pemb": _base64(pem),
        "gcpb": _base64(json.dumps(gcp)),
        "hex": text(rng, 32, "0123456789abcdef"),
        "id": "AKIA" + text(rng, 16, string.ascii_uppercase + "234567"),
        "key": text(rng, 40),
    }
    for name, value in drawn.items():
        form = form.replace(f"{{{name}}}", value)
    secrets = []
    for number, kind in enumerate(kinds, 1):
        word, _, name = kind.partition(":")
        secrets.append((word, drawn[name or str(number)]))
    return Written(path, form, secrets)
