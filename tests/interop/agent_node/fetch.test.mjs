import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { afterEach, beforeEach, test } from "node:test";

import { ConfigurationError, forwarding, headers, serving } from "delegation-agent";
import { recording } from "./recorder.mjs";

const USERS = Array.from({ length: 200 }, (_, number) => number);
let sidecar, elsewhere, call;

beforeEach(async () => {
  [sidecar, elsewhere] = await Promise.all([recording(), recording()]);
  process.env.SIDECAR_OUTBOUND_URL = sidecar.origin;
  call = forwarding();
});

afterEach(() => {
  sidecar.close();
  elsewhere.close();
});

test("a call to the sidecar has the handle of its request and no more", async () => {
  await serving("alice", () => call(`${sidecar.origin}/crm`, { headers: { "X-Own": "1" } }));
  await serving("bob", () => call(new URL("/crm", sidecar.origin)));
  await serving("carol", () => call(new Request(`${sidecar.origin}/crm`, { method: "POST", body: "question" })));
  await call(`${sidecar.origin}/crm`);
  assert.deepEqual(sidecar.handles, [["alice"], ["bob"], ["carol"], undefined]);
  assert.deepEqual(sidecar.requests.map((one) => one.fields.authorization), Array(4).fill(undefined));
  assert.equal(sidecar.requests[0].fields["x-own"], "1");
  assert.deepEqual([sidecar.requests[2].method, sidecar.requests[2].body], ["POST", "question"]);
});

test("a call to another origin has none", async () => {
  const port = new URL(sidecar.origin).port;
  await serving("alice", () => call(`${elsewhere.origin}/crm`));
  await serving("alice", () => call(`http://localhost:${port}/crm`));
  assert.deepEqual([elsewhere.handles, sidecar.handles], [[undefined], [undefined]]);
});

for (const status of [301, 302, 303, 307, 308]) {
  test(`a redirect (${status}) takes the handle and the caller's key nowhere else`, async () => {
    sidecar.redirects = { "/away": [status, `${elsewhere.origin}/there`], "/within": [status, "/done"] };
    const method = status % 2 ? "post" : "POST"; // the Fetch standard takes both for one
    const post = { method, body: "question", headers: { authorization: "Bearer key", "content-type": "a/b" } };
    for (const path of ["/away", "/within"]) {
      const response = await serving("alice", () => call(sidecar.origin + path, post));
      assert.equal(response.status, 200);
    }
    const kept = status > 303;
    assert.deepEqual(elsewhere.handles, [undefined]);
    assert.equal(elsewhere.requests[0].fields.authorization, undefined);
    assert.deepEqual(sidecar.requests.map((one) => [one.target, one.shown]), [
      ["/away", ["alice"]],
      ["/within", ["alice"]],
      ["/done", ["alice"]],
    ]);
    for (const { method, body, fields } of [elsewhere.requests[0], sidecar.requests[2]]) {
      assert.deepEqual([method, body, fields["content-type"]], kept ? ["POST", "question", "a/b"] : ["GET", "", undefined]);
    }
  });
}

test("redirects are left or refused where the caller says so", async () => {
  sidecar.redirects = { "/away": [302, `${elsewhere.origin}/there`] };
  const left = await serving("alice", () => call(`${sidecar.origin}/away`, { redirect: "manual" }));
  assert.equal(left.status, 302);
  await assert.rejects(serving("alice", () => call(`${sidecar.origin}/away`, { redirect: "error" })), TypeError);
  assert.deepEqual(elsewhere.requests, []);
});

test("a redirect that leads in a circle ends", async () => {
  sidecar.redirects = { "/a": [302, "/a"] };
  await assert.rejects(serving("alice", () => call(`${sidecar.origin}/a`)), /too many redirects/);
  assert.equal(sidecar.requests.length, 21);
});

test("a streamed body is not sent twice", async () => {
  sidecar.redirects = { "/a": [307, "/b"] };
  const body = new Blob(["question"]).stream();
  await assert.rejects(
    serving("alice", () => call(`${sidecar.origin}/a`, { method: "POST", body, duplex: "half" })),
    /send a string or a buffer/,
  );
});

test("fields of the caller's own are left", async () => {
  const own = { headers: { "Delegation-Handle": "own", Authorization: "Bearer key" } };
  await serving("alice", () => call(`${sidecar.origin}/crm`, own));
  await call(`${elsewhere.origin}/crm`, own);
  assert.deepEqual([sidecar.handles, elsewhere.handles], [[["own"]], [["own"]]]);
  assert.equal(sidecar.requests[0].fields.authorization, "Bearer key");
});

test("200 users at once never mix", async () => {
  const user = (number) => (number % 5 === 0 ? undefined : `user-${number}`);
  await Promise.all(
    USERS.map((number) =>
      serving(user(number), async () => {
        for (let turn = 0; turn < 2; turn += 1) {
          await new Promise((done) => setTimeout(done, (number * 7) % 13));
          await call(`${sidecar.origin}/crm`, { headers: { "x-user": String(number) } });
        }
      }),
    ),
  );
  assert.equal(sidecar.requests.length, 400);
  for (const { fields } of sidecar.requests) {
    assert.equal(fields["delegation-handle"], user(Number(fields["x-user"])));
  }
});

test("other clients get the header for the sidecar alone", () => {
  const port = new URL(sidecar.origin).port;
  assert.deepEqual(headers(`${sidecar.origin}/crm`), {});
  serving("alice", () => {
    assert.deepEqual(headers(`${sidecar.origin}/crm`), { "delegation-handle": "alice" });
    for (const url of [
      elsewhere.origin,
      `https://127.0.0.1:${port}/`,
      `http://localhost:${port}/`,
      `http://127.0.0.1:${port}@evil.example/`,
      `http://evil.example@127.0.0.1:${port}/`,
      "/crm",
      "",
    ]) {
      assert.deepEqual(headers(url), {}, url);
    }
  });
});

test("no header is given out where a proxy would get it", () => {
  process.env.HTTP_PROXY = "http://proxy.example:3128";
  serving("alice", () => {
    assert.throws(() => headers(`${sidecar.origin}/crm`), (error) => error instanceof ConfigurationError && /add 127.0.0.1 to NO_PROXY/.test(error.message));
    process.env.NO_PROXY = "127.0.0.1";
    assert.deepEqual(headers(`${sidecar.origin}/crm`), { "delegation-handle": "alice" });
  });
  delete process.env.HTTP_PROXY;
  delete process.env.NO_PROXY;
});

test("an unusable address is an error that names the fix and quotes nothing", () => {
  delete process.env.SIDECAR_OUTBOUND_URL;
  assert.throws(() => forwarding(), (error) => error instanceof ConfigurationError && /SIDECAR_OUTBOUND_URL is not set: write/.test(error.message));
  for (const [outbound, told] of [
    ["", /outbound is not set/],
    ["https://127.0.0.1:7080", /is not plain http/],
    ["127.0.0.1:7080", /is not plain http/],
    ["http://alice:secret@127.0.0.1:7080", /is not plain http/],
    ["http://sidecar.example:7080", /a handle never leaves the machine; write/],
    ["http://127.0.0.1.example:7080", /is not on loopback/],
    ["http://127.0.0.1:7080/crm", /remove the path/],
  ]) {
    assert.throws(() => forwarding(fetch, { outbound }), (error) => told.test(error.message) && !/secret/.test(error.message));
  }
  for (const outbound of ["http://127.0.0.1:7080/", "http://localhost", "http://[::1]:7080"]) {
    forwarding(fetch, { outbound });
  }
});

test("a fetch that would go by another proxy is refused", () => {
  const code = "import('delegation-agent').then((ours) => ours.forwarding()).then(() => {}, (error) => console.log(error.message))";
  const run = (environment) =>
    spawnSync(process.execPath, ["-e", code], {
      env: { PATH: process.env.PATH, SIDECAR_OUTBOUND_URL: "http://127.0.0.1:7080", ...environment },
      encoding: "utf8",
    }).stdout;
  const proxy = { NODE_USE_ENV_PROXY: "1", HTTP_PROXY: "http://proxy.example:3128" };
  assert.match(run(proxy), /add 127.0.0.1 to NO_PROXY/);
  assert.equal(run({ ...proxy, NO_PROXY: "localhost,127.0.0.1" }), "");
  assert.equal(run({ HTTP_PROXY: "http://proxy.example:3128" }), "");
});
