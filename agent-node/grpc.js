// For @grpc/grpc-js 1.10 or newer: `new Server({ interceptors: [serverInterceptor] })` and `new Client(...channel("crm"))`.
import { credentials, InterceptingCall, ServerInterceptingCall } from "@grpc/grpc-js";

import { HEADER, handle, serving, sole } from "./handles.js";
import { ConfigurationError, outboundOrigin } from "./outbound.js";

const PROXIES = ["grpc_proxy", "https_proxy", "http_proxy"]; // the order of gRPC

/** An interceptor for a server: it serves each call with its own handle, or with none. */
export function serverInterceptor(_method, call) {
  let held;
  return new ServerInterceptingCall(call, {
    start(begin) {
      begin({
        onReceiveMetadata(metadata, next) {
          held = sole(metadata.get(HEADER));
          serving(held, () => next(metadata));
        },
        onReceiveMessage: (message, next) => serving(held, () => next(message)),
        onReceiveHalfClose: (next) => serving(held, next),
      });
    },
  });
}

/**
 * Return the arguments of a client that calls the sidecar, sends the handle with each call, and uses no proxy:
 * `new Customers(...channel("crm"))`. `authority` is `match.host` of the outbound route to the next hop.
 * Throws a ConfigurationError where it is empty or a URL.
 */
export function channel(authority, { outbound, interceptors = [], ...options } = {}) {
  if (authority !== undefined && (authority === "" || authority.includes("/"))) {
    throw new ConfigurationError(
      `${JSON.stringify(authority)} is no authority: write match.host of the outbound route, such as crm`,
    );
  }
  return [
    targetOf(outboundOrigin(outbound)),
    credentials.createInsecure(),
    {
      ...(authority === undefined ? {} : { "grpc.default_authority": authority }),
      ...options,
      "grpc.enable_http_proxy": 0,
      interceptors: [...interceptors, clientInterceptor],
    },
  ];
}

/**
 * Return the interceptors for a client whose address, without TLS, is `target`: one if that is the sidecar's, spelled
 * as host and port; none otherwise. Throws a ConfigurationError where the environment names a proxy for it.
 */
export function clientInterceptors(target, { outbound } = {}) {
  const origin = outboundOrigin(outbound);
  if (target !== targetOf(origin)) {
    return [];
  }
  const hostname = new URL(origin).hostname.replace(/^\[|\]$/g, ""); // as gRPC reads it
  const excepted = process.env.no_grpc_proxy ?? process.env.no_proxy ?? "";
  if (PROXIES.some((name) => process.env[name]) && !excepted.split(/\s*,\s*/).includes(hostname)) {
    throw new ConfigurationError(`gRPC would send calls to the sidecar by http_proxy: add ${hostname} to no_proxy`);
  }
  return [clientInterceptor];
}

/**
 * A connection has the context of whoever made its first call. So what arrives is handed out with the handle of its own
 * call: a callback, or a listener of an event, would find the handle of another user there.
 */
function clientInterceptor(options, nextCall) {
  const held = handle();
  return new InterceptingCall(nextCall(options), {
    start(metadata, _listener, next) {
      const shown = metadata.clone(); // the agent may use its own again
      if (held !== undefined && shown.get(HEADER).length === 0) {
        shown.set(HEADER, held);
      }
      next(shown, {
        onReceiveMetadata: (received, pass) => serving(held, () => pass(received)),
        onReceiveMessage: (message, pass) => serving(held, () => pass(message)),
        onReceiveStatus: (status, pass) => serving(held, () => pass(status)),
      });
    },
  });
}

function targetOf(origin) {
  const { hostname, port } = new URL(origin);
  return `${hostname}:${port || 80}`;
}
