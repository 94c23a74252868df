// Uses every public name as a program of somebody else does: it only has to compile.
import { createServer } from "node:http";
import express from "express";
import fastify from "fastify";
import { carry, fastifyHook, forwarding, handle, headers, listener, middleware, serving } from "delegation-agent";
const app = express();
app.use(middleware);
fastify().addHook("onRequest", fastifyHook);
createServer(listener((request, response) => response.end(request.url)));
const f: typeof fetch = forwarding();
const n: number = serving("a", () => 1);
const c: (a: string) => number = carry((a: string) => a.length);
const h: string | undefined = handle();
const o: Record<string, string> = headers(new URL("http://a"));
