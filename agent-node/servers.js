// Middleware that keeps the handle of the request being served.
import { serving, shown } from "./handles.js";

/** Middleware of Express and Connect: `app.use(middleware)`, before all others. */
export function middleware(request, _response, next) {
  serving(shown(request), next);
}

/** Wrap a listener of node:http: `createServer(listener((request, response) => …))`. */
export function listener(serve) {
  return (request, response) => serving(shown(request), () => serve(request, response));
}

/** A hook for Fastify: `app.addHook("onRequest", fastifyHook)`, before all others. */
export function fastifyHook(request, _reply, done) {
  serving(shown(request.raw), done);
}
