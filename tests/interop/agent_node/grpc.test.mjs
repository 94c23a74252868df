import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { promisify } from "node:util";

import { InterceptingCall, makeGenericClientConstructor, Metadata, Server, ServerCredentials, credentials, status } from "@grpc/grpc-js";
import { ConfigurationError, carry, handle, serving } from "delegation-agent";
import { channel, clientInterceptors, serverInterceptor } from "delegation-agent/grpc";

const USERS = Array.from({ length: 100 }, (_, number) => number);
const KINDS = ["unary", "many", "sum", "talk"];
const text = { requestSerialize: Buffer.from, requestDeserialize: String, responseSerialize: Buffer.from, responseDeserialize: String };
const method = (name, requestStream, responseStream) => ({ path: `/demo.Service/${name}`, requestStream, responseStream, ...text });
const SERVICE = {
  unary: method("Unary", false, false),
  many: method("Many", false, true),
  sum: method("Sum", true, false),
  talk: method("Talk", true, true),
};
const Client = makeGenericClientConstructor(SERVICE, "Service");
const pause = () => new Promise((done) => setTimeout(done, 1));
const expected = (number) => (number % 5 === 0 ? "undefined" : `user-${number}`);

function metadataOf(...handles) {
  const metadata = new Metadata();
  handles.filter((one) => one !== "undefined").forEach((one) => metadata.add("delegation-handle", one));
  return metadata;
}

let sidecar, opened;

beforeEach(async () => {
  opened = [];
  const seen = (call) => String(call.metadata.get("delegation-handle"));
  sidecar = await serve(
    {
      unary: (call, answer) => answer(null, seen(call) || "undefined"),
      many: (call) => {
        call.write(seen(call) || "undefined");
        call.end();
      },
      sum: (call, answer) => call.on("data", () => {}).on("end", () => answer(null, seen(call) || "undefined")),
      talk: (call) => call.on("data", () => call.write(seen(call) || "undefined")).on("end", () => call.end()),
    },
    [],
  );
  process.env.SIDECAR_OUTBOUND_URL = `http://${sidecar}`;
});

afterEach(() => opened.forEach((close) => close()));

async function serve(handlers, interceptors = [serverInterceptor]) {
  const server = new Server({ interceptors });
  server.addService(SERVICE, handlers);
  opened.push(() => server.forceShutdown());
  return `127.0.0.1:${await promisify(server.bindAsync.bind(server))("127.0.0.1:0", ServerCredentials.createInsecure())}`;
}

function client(...words) {
  const made = new Client(...words);
  opened.push(() => made.close());
  return made;
}

const plain = (target, options) => client(target, credentials.createInsecure(), options);

/** Make a call of a kind; return the words that it answers, and what its own listeners see. */
function ask(to, kind, metadata = new Metadata(), look = () => [String(handle())]) {
  return new Promise((done, fail) => {
    const told = [];
    const streams = ["many", "talk"].includes(kind);
    const end = (error, answer) => (error ? fail(error) : done([answer, ...told, ...look()]));
    const words = kind === "unary" || kind === "many" ? ["a", metadata] : [metadata];
    const call = to[kind](...words, ...(streams ? [] : [end]));
    call.on("metadata", () => told.push(...look()));
    if (streams) {
      call.on("data", (piece) => told.push(piece, ...look()));
      call.on("end", () => done([...told, ...look()]));
      call.on("error", fail);
    }
    if (kind === "sum" || kind === "talk") {
      call.write("a");
      call.end("b");
    }
  });
}

const askAll = async (to) => (await Promise.all(KINDS.map((kind) => ask(to, kind)))).flat();

/** Handlers of an agent that looks at its handle, also in its listeners, and asks the sidecar by each kind of call. */
function agent() {
  const crm = client(...channel());
  const looks = async () => {
    const before = String(handle());
    await pause();
    return [before, String(handle()), ...(await askAll(crm))].join(" ");
  };
  const read = async (call) => {
    const told = [];
    call.on("data", () => told.push(String(handle())));
    await new Promise((done) => call.on("end", done));
    return [...told, await looks()].join(" ");
  };
  const talk = async (call) => {
    for await (const _ of call.iterator({ destroyOnReturn: false })) {
      call.write(await looks());
    }
    call.end();
  };
  return {
    unary: async (_call, answer) => answer(null, await looks()),
    many: async (call) => {
      call.write(await looks());
      call.write(await looks());
      call.end();
    },
    sum: async (call, answer) => answer(null, await read(call)),
    talk: (call) => void talk(call),
  };
}

for (const kind of KINDS) {
  test(`users served at once by calls of the kind "${kind}" never mix`, async () => {
    const caller = plain(await serve(agent()));
    const told = await Promise.all(USERS.map((number) => ask(caller, kind, metadataOf(expected(number)), () => [])));
    told.forEach((words, number) => assert.deepEqual([...new Set(words.join(" ").split(" "))], [expected(number)]));
    assert.equal(handle(), undefined);
  });
}

test("a server without the interceptor sends no handle", async () => {
  const caller = plain(await serve(agent(), []));
  const words = (await ask(caller, "unary", metadataOf("alice"))).join(" ").split(" ");
  assert.deepEqual(new Set(words), new Set(["undefined"]));
});

test("a call and its listeners have the handle of its request, none outside of one", async () => {
  const crm = client(...channel());
  for (const user of ["alice", "bob", undefined]) {
    const told = await Promise.all(KINDS.map((kind) => serving(user, () => ask(crm, kind))));
    assert.deepEqual(new Set(told.flat()), new Set([String(user)]));
  }
});

test("a handle that the agent sets itself is kept, and its metadata are never changed", async () => {
  const crm = client(...channel());
  const [mine, shared] = [metadataOf("mine"), new Metadata()];
  assert.equal((await serving("alice", () => ask(crm, "unary", mine)))[0], "mine");
  assert.equal((await serving("alice", () => ask(crm, "unary", shared)))[0], "alice");
  assert.equal((await ask(crm, "unary", shared))[0], "undefined");
  assert.deepEqual(shared.get("delegation-handle"), []);
});

test("a call without one clear handle has none", async () => {
  const caller = plain(await serve({ ...agent(), unary: (_call, answer) => answer(null, String(handle())) }));
  assert.equal((await ask(caller, "unary", metadataOf("alice")))[0], "alice");
  for (const handles of [["alice", "bob"], ["alice", "alice"], ["alice,bob"], ["alice bob"], []]) {
    assert.equal((await ask(caller, "unary", metadataOf(...handles)))[0], "undefined", String(handles));
  }
});

test("an unknown method and the status of a handler pass", async () => {
  const { unary } = SERVICE;
  const failing = (_call, answer) => answer({ code: status.FAILED_PRECONDITION, details: "no such order" });
  const target = await serve({ ...agent(), unary: failing });
  await assert.rejects(ask(plain(target), "unary"), { code: status.FAILED_PRECONDITION, details: "no such order" });
  const Other = makeGenericClientConstructor({ unary: { ...unary, path: "/demo.Service/Other" } }, "Other");
  const other = new Other(target, credentials.createInsecure());
  opened.push(() => other.close());
  await assert.rejects(ask(other, "unary"), { code: status.UNIMPLEMENTED });
});

test("a listener of a cancelled call has the handle that it carries, and never another's", async () => {
  let end;
  const ended = new Promise((done) => (end = done));
  const many = (call) => {
    call.write("a");
    const seen = [];
    call.on("cancelled", () => seen.push(handle()));
    call.on("cancelled", carry(() => end([...seen, handle()])));
  };
  const caller = plain(await serve({ ...agent(), many }));
  const call = caller.many("a", metadataOf("alice"));
  call.on("error", () => {});
  call.on("data", () => call.cancel());
  const [without, carried] = await ended;
  assert.equal(carried, "alice");
  assert.ok([undefined, "alice"].includes(without));
});

test("other interceptors of the agent see its calls first", async () => {
  const seen = [];
  const mine = (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        seen.push(metadata.get("delegation-handle"));
        next(metadata, listener);
      },
    });
  const crm = client(...channel("crm", { interceptors: [mine] }));
  assert.equal((await serving("alice", () => ask(crm, "unary")))[0], "alice");
  assert.deepEqual(seen, [[]]);
});

test("interceptors of one call replace those of the client, so the call has no handle", async () => {
  const crm = client(...channel());
  const passing = (options, nextCall) => new InterceptingCall(nextCall(options));
  const call = (options) => promisify((done) => crm.unary("a", new Metadata(), options, done))();
  assert.equal(await serving("alice", () => call({})), "alice");
  assert.equal(await serving("alice", () => call({ interceptors: [passing] })), "undefined");
});

test("a client of the sidecar has the route's authority, and no proxy", async () => {
  process.env.http_proxy = "http://127.0.0.1:9";
  try {
    const [target, , options] = channel("crm", { "grpc.enable_http_proxy": 1, "grpc.enable_retries": 0 });
    assert.equal(target, sidecar);
    assert.deepEqual(
      [options["grpc.default_authority"], options["grpc.enable_http_proxy"], options["grpc.enable_retries"]],
      ["crm", 0, 0],
    );
    assert.equal((await serving("alice", () => ask(client(...channel("crm")), "unary")))[0], "alice");
  } finally {
    delete process.env.http_proxy;
  }
});

test("interceptors are for the sidecar's address alone", async () => {
  const port = sidecar.split(":")[1];
  const crm = plain(sidecar, { interceptors: clientInterceptors(sidecar) });
  assert.equal((await serving("alice", () => ask(crm, "unary")))[0], "alice");
  for (const other of [`localhost:${port}`, `dns:///${sidecar}`, `${sidecar}0`, "127.0.0.1:1", "crm.example:443", ""]) {
    assert.deepEqual(clientInterceptors(other), [], other);
  }
  const refused = (error) => error instanceof ConfigurationError && /add 127.0.0.1 to no_proxy/.test(error.message);
  process.env.grpc_proxy = "http://127.0.0.1:9";
  try {
    assert.throws(() => clientInterceptors(sidecar), refused);
    process.env.no_proxy = "crm.example,127.0.0.1";
    assert.equal(clientInterceptors(sidecar).length, 1);
    assert.throws(() => clientInterceptors("[::1]:7080", { outbound: "http://[::1]:7080" }), /add ::1 to no_proxy/);
    process.env.no_proxy = "::1";
    assert.equal(clientInterceptors("[::1]:7080", { outbound: "http://[::1]:7080" }).length, 1);
    process.env.no_grpc_proxy = "crm.example"; // counts in place of the other
    assert.throws(() => clientInterceptors(sidecar), refused);
  } finally {
    ["grpc_proxy", "no_proxy", "no_grpc_proxy"].forEach((name) => delete process.env[name]);
  }
  for (const authority of ["http://crm", "crm/", ""]) {
    assert.throws(() => channel(authority), /is no authority: write match.host/);
  }
  delete process.env.SIDECAR_OUTBOUND_URL;
  assert.throws(() => channel(), /SIDECAR_OUTBOUND_URL is not set/);
});
