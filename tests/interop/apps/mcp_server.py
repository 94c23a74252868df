"""An MCP server with what the official conformance runner calls by name, by the official SDK. Arguments: port.

With ``--json`` it answers by JSON in place of event streams, with ``--stateless`` it opens no session (without either:
``--sessions``), with ``--resumable`` its streams can be resumed. ``/calls`` tells how often each tool ran.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections import Counter
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    ImageContent,
    JSONRPCMessage,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()

server = MCPServer("conformance")
calls: Counter[str] = Counter()


def embedded(uri: str, text: str) -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    return EmbeddedResource(type="resource", resource=contents)


@server.tool()
def test_simple_text() -> str:
    """Answer by text."""
    calls["test_simple_text"] += 1
    return "This is a simple text response for testing."


@server.tool()
def delete_everything() -> str:
    """Do what no caller of the tests may ask for."""
    calls["delete_everything"] += 1
    return "gone"


@server.tool()
def test_image_content() -> ImageContent:
    """Answer by an image."""
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


@server.tool()
def test_audio_content() -> AudioContent:
    """Answer by a sound."""
    return AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")


@server.tool()
def test_embedded_resource() -> list[EmbeddedResource]:
    """Answer by a resource."""
    return [embedded("test://embedded-resource", "This is an embedded resource content.")]


@server.tool()
def test_multiple_content_types() -> list[Any]:
    """Answer by three kinds of content."""
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PIXEL, mime_type="image/png"),
        embedded("test://mixed-content-resource", '{"test":"data","value":123}'),
    ]


@server.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Log while it runs."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(line)
        await asyncio.sleep(0.05)
    return "Tool with logging executed successfully"


@server.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    """Report progress."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100)
        await asyncio.sleep(0.05)
    return "done"


@server.tool()
async def slow(ctx: Context, seconds: float = 30.0) -> str:
    """Run for long, and count only if it comes to its end."""
    await ctx.report_progress(0, 1)
    await asyncio.sleep(seconds)
    calls["slow"] += 1
    return "slept"


@server.tool()
def test_error_handling() -> str:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


@server.tool()
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Ask the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    result = await ctx.session.create_message(messages=[message], max_tokens=100)
    return f"LLM response: {getattr(result.content, 'text', '')}"


class Person(BaseModel):
    username: str
    email: str


@server.tool()
async def test_elicitation(message: str, ctx: Context) -> str:
    """Ask the client's user."""
    result = await ctx.elicit(message=message, schema=Person)
    return f"User response: action={result.action}, content={getattr(result, 'data', None)}"


class Defaults(BaseModel):
    """One default of each type (SEP-1034)."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


@server.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Ask with defaults."""
    result = await ctx.elicit(message="Who is it?", schema=Defaults)
    return f"Elicitation completed: action={result.action}, content={getattr(result, 'data', None)}"


TITLED = [{"const": "value1", "title": "First"}, {"const": "value2", "title": "Second"}]


class Choices(BaseModel):
    """One of each way to offer a choice (SEP-1330)."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2"]})  # noqa: N815 - the runner's names
    titledSingle: str = Field(json_schema_extra={"oneOf": TITLED})  # noqa: N815
    legacyEnum: str = Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]})  # noqa: N815
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["a", "b"]}})  # noqa: N815
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": TITLED}})  # noqa: N815


@server.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Ask for choices."""
    result = await ctx.elicit(message="Which?", schema=Choices)
    return f"Elicitation completed: action={result.action}, content={getattr(result, 'data', None)}"


@server.tool()
async def test_reconnection(ctx: Context) -> str:
    """Close the stream in the middle; the client resumes it."""
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return "Reconnection test completed"


@server.tool()
def test_region(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    seats: Annotated[int, Field(json_schema_extra={"x-mcp-header": "seat_count"})],
) -> str:
    """Take two arguments that clients repeat in header fields."""
    calls["test_region"] += 1
    return f"{region}: {seats}"


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """A picture."""
    return base64.b64decode(PIXEL)


@server.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """A resource to subscribe to."""
    return "Watched resource content"


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:  # noqa: A002 - as the template names it
    """Fill in the template."""
    return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'


@server.prompt()
def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


@server.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the runner's name
    """A prompt with a resource."""
    return [UserMessage(content=embedded(resourceUri, "Embedded resource content for testing."))]


@server.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image."""
    return [UserMessage(content=ImageContent(type="image", data=PIXEL, mime_type="image/png"))]


@server.completion()
async def complete(_ref: PromptReference | ResourceTemplateReference, _argument: Any, _context: Any) -> Completion:
    """Complete an argument."""
    return Completion(values=["paris", "park"], total=2, has_more=False)


@server.custom_route("/calls", methods=["GET"])
async def called(_request: Request) -> JSONResponse:
    """Tell how often each tool ran."""
    return JSONResponse(dict(calls))


class Events(EventStore):
    """Keeps every event, so that a stream can go on after a break."""

    def __init__(self) -> None:
        self.all: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event; return its id."""
        self.all.append((stream_id, message))
        return str(len(self.all))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send again what a stream said after an event; return the stream."""
        last = int(last_event_id)
        stream = self.all[last - 1][0]
        for at, (one, message) in enumerate(self.all[last:], last + 1):
            if one == stream and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    for name in ("--sessions", "--json", "--stateless", "--resumable"):
        parser.add_argument(name, action="store_true")
    options = parser.parse_args()
    app = server.streamable_http_app(
        json_response=options.json,
        stateless_http=options.stateless,
        event_store=Events() if options.resumable else None,
        retry_interval=100 if options.resumable else None,
    )
    uvicorn.run(app, port=options.port, log_level="warning")
