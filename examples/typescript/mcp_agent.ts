// An agent that is an MCP server, and calls a tool of another one, behind another sidecar, for the user of the request.
//   SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 node mcp_agent.ts
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { NodeStreamableHTTPServerTransport } from "@modelcontextprotocol/node";
import { McpServer } from "@modelcontextprotocol/server";
import { forwarding, middleware } from "delegation-agent";
import express from "express";

const CRM = new URL(`${process.env.SIDECAR_OUTBOUND_URL}/crm/mcp`);
const fetch = forwarding();

async function customer(number: string): Promise<string> {
  const crm = new Client({ name: "writer", version: "1.0" });
  await crm.connect(new StreamableHTTPClientTransport(CRM, { fetch }));
  try {
    const found = await crm.callTool({ name: "customer", arguments: { number } });
    const [first] = found.content as { text?: string }[];
    if (found.isError) {
      throw new Error(first?.text);
    }
    return first?.text ?? "";
  } finally {
    await crm.close();
  }
}

const app = express();
app.use(middleware);
app.post("/mcp", async (request, response) => {
  const server = new McpServer({ name: "writer", version: "1.0" });
  server.registerTool("ask", { description: "Answer from the customer's record." }, async () => ({
    content: [{ type: "text", text: await customer("42") }],
  }));
  const transport = new NodeStreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  await server.connect(transport);
  await transport.handleRequest(request, response);
});
app.listen(Number(process.env.PORT), "127.0.0.1");
