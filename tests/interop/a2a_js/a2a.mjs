// An agent and a client of A2A by gRPC on the official SDK in JavaScript.
//   node a2a.mjs server VERSION PORT GRPC_PORT  serves its card and its service until it is ended
//   node a2a.mjs client BASE [task:ID]          runs each operation, and prints what it got as one line of JSON (HANDLE=…)
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { AgentCard, Role, TaskState } from "@a2a-js/sdk";
import { ClientFactory, DefaultAgentCardResolver } from "@a2a-js/sdk/client";
import { GrpcTransportFactory } from "@a2a-js/sdk/client/grpc";
import { LegacyA2AService, legacyGrpcService } from "@a2a-js/sdk/compat/v0_3/server/grpc";
import {
  AgentEvent,
  DefaultExecutionEventBusManager,
  DefaultRequestHandler,
  InMemoryPushNotificationStore,
  InMemoryTaskStore,
} from "@a2a-js/sdk/server";
import { A2AService, UserBuilder, grpcService } from "@a2a-js/sdk/server/grpc";
import { Server, ServerCredentials } from "@grpc/grpc-js";

const [command, ...words] = process.argv.slice(2);
const LISTED = "https://hooks.acme.example/a2a/1";
const UNLISTED = "https://evil.example/";

function text(content) {
  return { content: { $case: "text", value: content }, metadata: undefined, filename: "", mediaType: "text/plain" };
}

// Works on every message in a task of its own.
const writer = {
  async execute({ taskId, contextId, userMessage }, bus) {
    const status = (state) => ({ state, message: undefined, timestamp: undefined });
    const of = { taskId, contextId, metadata: undefined };
    bus.publish(
      AgentEvent.task({
        id: taskId,
        contextId,
        status: status(TaskState.TASK_STATE_SUBMITTED),
        artifacts: [],
        history: [userMessage],
        metadata: undefined,
      }),
    );
    bus.publish(AgentEvent.statusUpdate({ ...of, status: status(TaskState.TASK_STATE_WORKING) }));
    const artifact = { artifactId: "a", name: "draft", description: "", parts: [text("a draft")], extensions: [] };
    bus.publish(AgentEvent.artifactUpdate({ ...of, artifact, append: false, lastChunk: true }));
    bus.publish(AgentEvent.statusUpdate({ ...of, status: status(TaskState.TASK_STATE_COMPLETED) }));
    bus.finished();
  },
  async cancelTask() {},
};

function cardOf(name, version, port, grpcPort) {
  const here = `http://127.0.0.1:${port}`;
  const shared = {
    name,
    description: "Writes drafts",
    version: "1",
    defaultInputModes: ["text/plain"],
    defaultOutputModes: ["text/plain"],
    skills: [{ id: "draft", name: "Draft", description: "Writes a draft", tags: ["text"] }],
  };
  if (version === "0.3") {
    return {
      ...shared,
      protocolVersion: "0.3.0",
      url: `${here}/`,
      preferredTransport: "JSONRPC",
      additionalInterfaces: [
        { url: here, transport: "HTTP+JSON" },
        { url: `127.0.0.1:${grpcPort}`, transport: "GRPC" },
      ],
      capabilities: { streaming: true, pushNotifications: true },
      supportsAuthenticatedExtendedCard: true,
    };
  }
  return {
    ...shared,
    supportedInterfaces: [
      { url: `${here}/`, protocolBinding: "JSONRPC", protocolVersion: version },
      { url: here, protocolBinding: "HTTP+JSON", protocolVersion: version },
      { url: `127.0.0.1:${grpcPort}`, protocolBinding: "GRPC", protocolVersion: version },
    ],
    capabilities: { streaming: true, pushNotifications: true, extendedAgentCard: true },
  };
}

// A card as the SDK's own objects, which are those of 1.0.
function known(name, version, port, grpcPort) {
  const card = AgentCard.fromJSON(cardOf(name, "1.0", port, grpcPort));
  for (const one of card.supportedInterfaces) one.protocolVersion = version;
  return card;
}

function serve(version, port, grpcPort) {
  const handler = new DefaultRequestHandler(
    known("writer", version, port, grpcPort),
    new InMemoryTaskStore(),
    writer,
    new DefaultExecutionEventBusManager(),
    new InMemoryPushNotificationStore(),
    { send: async () => {} }, // the URLs are invented
    async () => known("extended writer", version, port, grpcPort),
  );
  const server = new Server();
  const options = { requestHandler: handler, userBuilder: UserBuilder.noAuthentication };
  if (version === "0.3") {
    server.addService(LegacyA2AService, legacyGrpcService(options));
  } else {
    server.addService(A2AService, grpcService(options));
  }
  server.bindAsync(`127.0.0.1:${grpcPort}`, ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
  });
  const card = JSON.stringify(cardOf("writer", version, port, grpcPort));
  createServer((request, answer) => {
    answer.writeHead(request.url === "/.well-known/agent-card.json" ? 200 : 404, { "content-type": "application/json" });
    answer.end(card);
  }).listen(Number(port), "127.0.0.1");
}

async function kind(call) {
  try {
    await call;
  } catch (error) {
    return error.name;
  }
  return "done";
}

// What the error of a call tells its reader: name, text, and our reason in its metadata.
async function shown(call) {
  try {
    await call;
  } catch (error) {
    return [error.name, error.message, error.metadata?.reason ?? null];
  }
  return ["done"];
}

function request(taskId = "") {
  return {
    tenant: "",
    message: {
      messageId: randomUUID(),
      contextId: "",
      taskId,
      role: Role.ROLE_USER,
      parts: [text("write")],
      metadata: undefined,
      extensions: [],
      referenceTaskIds: [],
    },
    configuration: undefined,
    metadata: undefined,
  };
}

const urls = (card) => [...new Set(card.supportedInterfaces.map((one) => one.url))].sort();
const NAMES = { task: "task", message: "message", statusUpdate: "status_update", artifactUpdate: "artifact_update" };

async function call(base, task) {
  const legacyCompat = { enabled: true };
  const card = await new DefaultAgentCardResolver({ legacyCompat }).resolve(base, ".well-known/agent-card.json");
  const client = await new ClientFactory({ transports: [new GrpcTransportFactory({ legacyCompat })] }).createFromAgentCard(
    card,
  );
  const handle = process.env.HANDLE;
  const options = handle ? { serviceParameters: { "delegation-handle": handle } } : {};
  const said = { name: card.name, urls: urls(card) };
  if (task) {
    const id = task.replace("task:", "");
    said.get = await kind(client.getTask({ tenant: "", id }, options));
    said.cancel = await kind(client.cancelTask({ tenant: "", id }, options));
    said.send = await kind(client.sendMessage(request(id), options));
    said.subscribe = await shown(client.resubscribeTask({ tenant: "", id }, options).next());
    return said;
  }
  const made = await client.sendMessage(request(), options);
  said.sent = ["status" in made ? "task" : "message"];
  said.state = made.status.state;
  said.task = made.id;
  said.stream = [];
  for await (const event of client.sendMessageStream(request(), options)) {
    said.stream.push(NAMES[event.payload.$case]);
  }
  said.got = (await client.getTask({ tenant: "", id: made.id }, options)).id === made.id;
  said.cancel = await kind(client.cancelTask({ tenant: "", id: made.id }, options));
  said.unknown = await kind(client.getTask({ tenant: "", id: "none" }, options));
  for (const [name, url] of [
    ["push", LISTED],
    ["push elsewhere", UNLISTED],
  ]) {
    const config = { tenant: "", id: "c", taskId: made.id, url, token: "", authentication: undefined };
    said[name] = await shown(client.createTaskPushNotificationConfig(config, options));
  }
  const extended = await client.getAgentCard(options); // the extended one, as the card says that there is one
  said.extended = [extended.name, urls(extended)];
  return said;
}

if (command === "server") {
  serve(...words);
} else {
  console.log(JSON.stringify(await call(...words)));
  process.exit();
}
