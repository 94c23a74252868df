// A fetch that sends the handle to the sidecar alone.
import { HEADER, handle } from "./handles.js";
import { isAt, outboundOrigin, requireDirect } from "./outbound.js";

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const NORMALIZED = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]); // in whatever case they are written
const MOST = 20; // redirects, as the Fetch standard has it
const OF_A_BODY = ["content-encoding", "content-language", "content-length", "content-location", "content-type"];
const OF_AN_ORIGIN = ["authorization", "cookie", "host", "proxy-authorization"];

/**
 * Return a fetch that adds the handle of the request being served to calls to the sidecar.
 *
 * Redirects of such calls are followed here: the library's own fetch takes every header along to any host. So
 * `response.redirected` is false, and a streamed body cannot be sent twice.
 */
export function forwarding(fetch = globalThis.fetch, { outbound } = {}) {
  const origin = outboundOrigin(outbound);
  requireDirect(origin);

  async function call(input, init, followed) {
    const held = handle();
    const url = input instanceof Request ? input.url : String(input);
    const fields = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
    if (held === undefined || !isAt(origin, url) || fields.has(HEADER)) {
      return fetch(input, init);
    }
    const redirect = init?.redirect ?? (input instanceof Request ? input.redirect : "follow");
    const sent = new Headers(fields);
    sent.set(HEADER, held);
    const manual = redirect === "follow" ? "manual" : redirect;
    const response = await fetch(input, { ...init, headers: sent, redirect: manual });
    const location = REDIRECTS.has(response.status) ? response.headers.get("location") : null;
    if (redirect !== "follow" || location === null) {
      return response;
    }
    if (followed === MOST) {
      throw new TypeError("fetch failed: too many redirects");
    }
    await response.body?.cancel();
    const next = new URL(location, url);
    return call(next, redirected(input, init, fields, response.status, next.origin !== origin), followed + 1);
  }

  return (input, init) => call(input, init, 0);
}

/** Return the options of the next request, by the Fetch standard's section on HTTP-redirect fetch. */
function redirected(input, init, fields, status, leaves) {
  const whole = input instanceof Request ? input : undefined;
  const written = init?.method ?? whole?.method ?? "GET";
  const method = NORMALIZED.has(written.toUpperCase()) ? written.toUpperCase() : written;
  const headers = new Headers(fields);
  const next = { signal: whole?.signal, ...init, method, headers };
  if (status === 303 ? !["GET", "HEAD"].includes(method) : status < 303 && method === "POST") {
    next.method = "GET";
    delete next.body;
    OF_A_BODY.forEach((name) => headers.delete(name));
  } else if (whole?.body || next.body instanceof ReadableStream || next.body?.[Symbol.asyncIterator]) {
    throw new TypeError("fetch failed: a streamed body cannot follow a redirect; send a string or a buffer");
  }
  if (leaves) {
    OF_AN_ORIGIN.forEach((name) => headers.delete(name));
  }
  return next;
}
