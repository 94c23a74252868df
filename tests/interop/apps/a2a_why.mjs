// The official A2A client in JavaScript: prints what the errors of refused calls tell their reader, as one line of JSON.
//   node a2a_why.mjs BASE BINDING HANDLE
import {
  ClientFactory,
  DefaultAgentCardResolver,
  JsonRpcTransportFactory,
  RestTransportFactory,
} from "@a2a-js/sdk/client";

const [base, binding, handle] = process.argv.slice(2);
const fetchImpl = (url, init = {}) =>
  fetch(url, { ...init, headers: { ...init.headers, "Delegation-Handle": handle } });
const Transport = binding === "JSONRPC" ? JsonRpcTransportFactory : RestTransportFactory;
const card = await new DefaultAgentCardResolver({ fetchImpl }).resolve(`${base}/`, ".well-known/agent-card.json");
const client = await new ClientFactory({ transports: [new Transport({ fetchImpl })] }).createFromAgentCard(card);

async function shown(call) {
  try {
    await call();
  } catch (error) {
    return [error.name, error.message, JSON.stringify(error)];
  }
  return ["done", "", ""];
}

const said = {
  list: await shown(() => client.listTasks({ tenant: "" })),
  stream: await shown(() => client.resubscribeTask({ tenant: "", id: "7" }).next()),
  task: await shown(() => client.getTask({ tenant: "", id: "7" })),
};
console.log(JSON.stringify(said));
