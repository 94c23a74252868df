import type { IncomingMessage, ServerResponse } from "node:http";

/** The header field's name, in lower case. */
export const HEADER: "delegation-handle";

/** The sidecar's address is missing or unusable. The message names the fix. */
export class ConfigurationError extends Error {}

/** Where the sidecar listens for calls; by default the variable SIDECAR_OUTBOUND_URL. */
export interface Options {
  outbound?: string;
}

/** Return the handle of the request being served; undefined outside of one, or if it has none. */
export function handle(): string | undefined;

/** Run `work` for a request with this handle; undefined: without one, whatever is served outside. */
export function serving<Result>(handle: string | undefined, work: () => Result): Result;

/** Return a function that runs, from any event or queue, with the handle that is current now. */
export function carry<This, Words extends unknown[], Result>(
  work: (this: This, ...words: Words) => Result,
): (this: This, ...words: Words) => Result;

/**
 * Return the header fields to add to a call: the handle if `url` is at the sidecar, otherwise none. For clients other
 * than fetch. Such a client must not follow redirects: it would take the header along to any host.
 */
export function headers(url: string | URL, options?: Options): Record<string, string>;

/**
 * Return a fetch that adds the handle of the request being served to calls to the sidecar, and to no other call.
 * It follows redirects of such calls itself: `response.redirected` is false, and a streamed body is not sent twice.
 */
export function forwarding(fetch?: typeof globalThis.fetch, options?: Options): typeof globalThis.fetch;

/** Middleware of Express and Connect: `app.use(middleware)`, before all others. */
export function middleware(request: IncomingMessage, response: ServerResponse, next: () => void): void;

/** Wrap a listener of node:http: `createServer(listener((request, response) => …))`. */
export function listener<Request extends IncomingMessage, Response extends ServerResponse>(
  serve: (request: Request, response: Response) => unknown,
): (request: Request, response: Response) => unknown;

/** A hook for Fastify: `app.addHook("onRequest", fastifyHook)`, before all others. */
export function fastifyHook(request: { raw: IncomingMessage }, reply: unknown, done: () => void): void;
