import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { test } from "node:test";

import { carry, fastifyHook, handle, listener, middleware, serving } from "delegation-agent";
import express from "express";
import fastify from "fastify";
import { listening } from "./recorder.mjs";

const USERS = Array.from({ length: 200 }, (_, number) => number);
const fieldsOf = (number) => (number % 5 === 0 ? {} : { "Delegation-Handle": `user-${number}` });
const expected = (number) => String(fieldsOf(number)["Delegation-Handle"]);
const pause = () => new Promise((done) => setTimeout(done, 1));

async function looks() {
  const before = handle();
  await pause();
  return `${before},${handle()}`;
}

// Each body comes in two pieces, after the others' heads: a server waits for it within the request.
async function askAll(origin) {
  const told = await Promise.all(
    USERS.map(async (number) => {
      const fields = { ...fieldsOf(number), "content-type": "application/json" };
      async function* body() {
        yield Buffer.from('{"a":');
        await new Promise((done) => setTimeout(done, 20));
        yield Buffer.from(" 1}");
      }
      return (await fetch(origin, { method: "POST", headers: fields, body: body(), duplex: "half" })).text();
    }),
  );
  assert.deepEqual(told, USERS.map((number) => `${expected(number)},${expected(number)}`));
}

test("node:http serves 200 users at once without mixing", async () => {
  const server = createServer(
    listener(async (request, response) => {
      for await (const _ of request);
      response.end(await looks());
    }),
  );
  await askAll(await listening(server));
  server.close();
});

test("a listener of an event has the handle that it carries, and never another's", async () => {
  const server = createServer(
    listener((request, response) => {
      let plain;
      request.on("data", () => {});
      request.on("end", () => (plain = handle()));
      request.on("end", carry(() => response.end(`${plain},${handle()}`)));
    }),
  );
  const origin = await listening(server);
  const told = await Promise.all(USERS.map(async (one) => (await fetch(origin, { method: "POST", headers: fieldsOf(one), body: "a" })).text()));
  told.forEach((text, one) => {
    const [plain, carried] = text.split(",");
    assert.equal(carried, expected(one));
    assert.ok(["undefined", expected(one)].includes(plain), text);
  });
  server.close();
});

test("Express serves 200 users at once without mixing, behind a body parser", async () => {
  const app = express();
  app.use(middleware);
  app.use(express.json());
  app.post("/", async (_request, response) => response.send(await looks()));
  const server = createServer(app);
  await askAll(await listening(server));
  server.close();
});

test("Fastify serves 200 users at once without mixing, behind its body parser", async () => {
  const app = fastify();
  app.addHook("onRequest", fastifyHook);
  app.post("/", looks);
  await askAll(await app.listen({ host: "127.0.0.1", port: 0 }));
  await app.close();
});

test("a request without one clear handle has none", async () => {
  const server = createServer(listener((_request, response) => response.end(String(handle()))));
  const origin = await listening(server);
  const ask = (...lines) =>
    new Promise((done) => request(origin, { headers: { "Delegation-Handle": lines } }, (told) => told.once("data", (text) => done(String(text)))).end());
  assert.equal(await ask("alice"), "alice");
  assert.equal(await ask("alice", "bob"), "undefined");
  assert.equal(await ask("alice bob"), "undefined");
  assert.equal(await ask(), "undefined");
  server.close();
});

test("carried work hides the handle where it runs, and a worker begun outside of requests has none", () => {
  const nobody = carry(handle);
  const alice = serving("alice", () => carry(handle));
  serving("bob", () => {
    assert.deepEqual([nobody(), alice(), handle()], [undefined, "alice", "bob"]);
    assert.equal(serving(undefined, handle), undefined);
  });
});
