"""Calls one provider by its Python client, as an agent does: ``sdk_caller.py CLIENT BASE_URL HANDLE``. Prints JSON."""

# ruff: noqa: T201
import json
import sys


def openai(base_url: str, handle: str) -> dict[str, object]:
    from openai import OpenAI

    client = OpenAI(base_url=f"{base_url}/v1", api_key=handle, max_retries=0)
    ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    whole = client.chat.completions.create(**ask)
    pieces = client.chat.completions.create(**ask, stream=True)
    return {
        "whole": whole.choices[0].message.content,
        "pieces": [piece.choices[0].delta.content for piece in pieces if piece.choices],
    }


def anthropic(base_url: str, handle: str) -> dict[str, object]:
    from anthropic import Anthropic

    client = Anthropic(base_url=base_url, api_key="none", default_headers={"Delegation-Handle": handle}, max_retries=0)
    ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    whole = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
    return {"whole": whole.content[0].text, "pieces": pieces}


def github(base_url: str, handle: str) -> dict[str, object]:
    from github import Auth, Github

    client = Github(auth=Auth.Token(handle), base_url=base_url, retry=None)
    return {"whole": client.get_user().login, "pieces": []}


if __name__ == "__main__":
    name, base, shown = sys.argv[1:]
    print(json.dumps({"openai": openai, "anthropic": anthropic, "github": github}[name](base, shown)))
