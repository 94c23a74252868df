// An agent with grpc-js. It asks the CRM, behind another sidecar, by gRPC for the user whose call it serves. Messages are
// bytes here, so that nothing has to be generated; clients made from a .proto file take the same arguments.
//   SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 node grpc_agent.ts
import { makeGenericClientConstructor, Server, ServerCredentials } from "@grpc/grpc-js";
import type { sendUnaryData, ServerUnaryCall } from "@grpc/grpc-js";
import { channel, serverInterceptor } from "delegation-agent/grpc";

const same = (message: Buffer): Buffer => message;
const bytes = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
const unary = (path: string) => ({ path, requestStream: false, responseStream: false, ...bytes });

const Customers = makeGenericClientConstructor({ find: unary("/shop.Customers/Find") }, "Customers");
const crm = new Customers(...channel("crm")); // the route's `match.host`

// A refusal by a sidecar passes on as it is, with its reason.
function ask(call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void {
  crm.find(call.request, { deadline: call.getDeadline() }, answer);
}

const server = new Server({ interceptors: [serverInterceptor] });
server.addService({ ask: unary("/shop.Planner/Ask") }, { ask });
server.bindAsync(`127.0.0.1:${process.env.PORT}`, ServerCredentials.createInsecure(), (error) => {
  if (error) {
    throw error;
  }
});
