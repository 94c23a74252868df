// An agent that speaks A2A, and asks another one, behind another sidecar, for the user whose request it serves.
//   SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 node a2a_agent.ts
import { randomUUID } from "node:crypto";
import { AgentCard, type Message, Role } from "@a2a-js/sdk";
import { ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory } from "@a2a-js/sdk/client";
import { AgentEvent, type AgentExecutor, DefaultRequestHandler, InMemoryTaskStore } from "@a2a-js/sdk/server";
import { UserBuilder, jsonRpcHandler } from "@a2a-js/sdk/server/express";
import { forwarding, middleware } from "delegation-agent";
import express from "express";

const CRM = `${process.env.SIDECAR_OUTBOUND_URL}/crm/`;
const fetchImpl = forwarding();
const cards = new DefaultAgentCardResolver({ fetchImpl });
const clients = new ClientFactory({ transports: [new JsonRpcTransportFactory({ fetchImpl })] });

function message(role: Role, text: string): Message {
  const part = { content: { $case: "text" as const, value: text }, metadata: {}, filename: "", mediaType: "text/plain" };
  const ids = { messageId: randomUUID(), contextId: "", taskId: "" };
  return { ...ids, role, parts: [part], metadata: {}, extensions: [], referenceTaskIds: [] };
}

async function ask(question: string): Promise<string> {
  const card = await cards.resolve(CRM, ".well-known/agent-card.json");
  for (const one of card.supportedInterfaces) {
    one.url = CRM; // a card names the other agent's own address, past both sidecars
  }
  const crm = await clients.createFromAgentCard(card);
  const call = { tenant: "", message: message(Role.ROLE_USER, question), configuration: undefined, metadata: {} };
  const told = (await crm.sendMessage(call)) as Message;
  const [first] = told.parts;
  return first?.content?.$case === "text" ? first.content.value : "";
}

const writer: AgentExecutor = {
  async execute(_context, events) {
    events.publish(AgentEvent.message(message(Role.ROLE_AGENT, await ask("When does customer 42 renew?"))));
    events.finished();
  },
  async cancelTask() {},
};

const card = AgentCard.fromJSON({
  name: "writer",
  description: "Answers questions about customers",
  version: "1.0",
  supportedInterfaces: [
    { url: `http://127.0.0.1:${process.env.PORT}/`, protocolBinding: "JSONRPC", protocolVersion: "1.0" },
  ],
  capabilities: {},
  defaultInputModes: ["text"],
  defaultOutputModes: ["text"],
  skills: [],
});
const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), writer);

const app = express();
app.use(middleware);
app.use("/", jsonRpcHandler({ requestHandler, userBuilder: UserBuilder.noAuthentication }));
app.listen(Number(process.env.PORT), "127.0.0.1");
