from __future__ import annotations

import base64
import json

import pytest

from delegation_audit.credentials.fields import Exposure, Read
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.kubernetes import is_kubernetes, read_kubernetes
from delegation_audit.credentials.tree import read_documents


def read(text: str) -> Read:
    return read_kubernetes(read_documents(text))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: crm, namespace: shop, annotations: {acme.example/api-key: noted}}
spec:
  template:
    spec:
      containers:
        - name: agent
          args: ["--api-key=given", "sh -c 'TOKEN=inside run'"]
          env:
            - {name: KEY, value: plain}
            - {name: OTHER, valueFrom: {secretKeyRef: {name: crm-keys, key: other}}}
          envFrom: [{secretRef: {name: more}}, {configMapRef: {name: settings}}]
      volumes: [{name: v, secret: {secretName: mounted}}]
"""


def test_a_workloads_env_args_and_annotations_are_fields_with_their_place() -> None:
    found = {(field.name, field.value): field for field in read(DEPLOYMENT).fields}
    assert found["KEY", "plain"].line == 11
    assert found["KEY", "plain"].owner == "Deployment shop/crm"
    assert (found["KEY", "plain"].object or "").endswith("containers[agent].env.KEY")
    assert found["api-key", "given"].line == 9
    assert ("TOKEN", "inside") in found
    assert found["api-key", "noted"].exposure is Exposure.CONFIGURATION


def test_the_secrets_that_a_workload_uses_have_it_as_owner() -> None:
    assert {(one.target, one.owner) for one in read(DEPLOYMENT).references} == {
        ("Secret shop/crm-keys", "Deployment shop/crm"),
        ("Secret shop/more", "Deployment shop/crm"),
        ("Secret shop/mounted", "Deployment shop/crm"),
        ("ConfigMap shop/settings", "Deployment shop/crm"),
    }


def test_a_secrets_data_is_decoded_and_its_encoding_hidden_too() -> None:
    text = f"{SECRET}data: {{KEY: {encoded('value1')}}}\nstringData: {{B: c}}\n"
    one, other = read(text).fields
    assert (one.name, one.value, one.hidden, one.exposure) == (
        "KEY",
        "value1",
        (encoded("value1"),),
        Exposure.SECRET_OBJECT,
    )
    assert (other.name, other.value) == ("B", "c")


@pytest.mark.parametrize("kind", ["SealedSecret", "ExternalSecret"])
def test_an_encrypted_or_external_secret_holds_none(kind: str) -> None:
    assert (
        read(f"apiVersion: x/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{encryptedData: {{A: AgB}}}}\n").fields
        == ()
    )


def test_a_secret_that_sops_encrypted_holds_none() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {A: b}\n"
    assert read(text).fields != ()
    assert read(text + "sops: {mac: x}\n").fields == ()


def test_a_token_secret_counts_filled_or_not() -> None:
    head = (
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: t\n"
        "  annotations: {kubernetes.io/service-account.name: agent}\n"
    )
    (empty,) = [field for field in read(head).fields if field.kind]
    assert (empty.kind, empty.identity, empty.owner) == (
        Kind.KUBERNETES_TOKEN,
        ("kubernetes", "t"),
        "service account agent",
    )
    (filled,) = [field for field in read(head + f"data: {{token: {encoded('abc')}}}\n").fields if field.kind]
    assert (filled.kind, filled.value, filled.identity) == (Kind.KUBERNETES_TOKEN, "abc", ())


def test_passwords_of_registries_are_basic_credentials() -> None:
    auths = {
        "auths": {"one": {"auth": encoded("u:p")}, "two": {"username": "u", "password": "q", "auth": encoded("u:q")}}
    }
    text = f"{SECRET}data: {{.dockerconfigjson: {encoded(json.dumps(auths))}}}\n"
    one, two = read(text).fields
    assert one.value == f"Basic {encoded('u:p')}"
    assert (two.value, two.kind) == ("q", Kind.BASIC_CREDENTIALS)
    assert encoded("u:q") in two.hidden


def test_a_text_of_several_lines_in_a_config_map_is_read_line_by_line() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  app.env: |\n    A=first\n    KEY=value1\n"
    assert ("KEY", "value1", 7) in [(field.name, field.value, field.line) for field in read(text).fields]


def test_the_copy_in_an_annotation_is_read_once() -> None:
    copy = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"K": encoded("v1")}})
    note = {"kubectl.kubernetes.io/last-applied-configuration": copy}
    text = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "annotations": note}})
    assert [(field.name, field.value) for field in read(text).fields] == [("K", "v1")]


def test_the_items_of_a_list_are_objects() -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"K": "v"}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [item, item]})
    assert [field.name for field in read(text).fields] == ["K", "K"]


def test_another_document_is_no_object() -> None:
    assert not is_kubernetes(read_documents("kind: thing\n")[0])
    assert read("kind: thing\n").fields == ()
