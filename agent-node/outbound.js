// The sidecar's outbound address: the only place that a handle is sent to.
import { HEADER, handle } from "./handles.js";

const VARIABLE = "SIDECAR_OUTBOUND_URL";
const EXAMPLE = "such as http://127.0.0.1:7080";

/** The sidecar's address is missing or unusable. The message names the fix. */
export class ConfigurationError extends Error {
  name = "ConfigurationError";
}

/** Return the origin of the sidecar's outbound address, by default that of the variable SIDECAR_OUTBOUND_URL. */
export function outboundOrigin(outbound) {
  const name = outbound === undefined ? VARIABLE : "outbound";
  const text = outbound ?? process.env[VARIABLE];
  if (!text) {
    throw new ConfigurationError(`${name} is not set: write the sidecar's outbound address, ${EXAMPLE}`);
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" || url.username || url.password) {
    throw new ConfigurationError(`${name} is not plain http: the sidecar listens on loopback; write it ${EXAMPLE}`);
  }
  if (!isLoopback(url.hostname)) {
    throw new ConfigurationError(
      `${name} is not on loopback: a handle never leaves the machine; write the sidecar's address, ${EXAMPLE}`,
    );
  }
  if (url.pathname !== "/" || url.search || url.hash) {
    throw new ConfigurationError(
      `${name} has more than an address: remove the path, so that it reads ${EXAMPLE.slice(8)}`,
    );
  }
  return url.origin;
}

/**
 * Return the header fields to add to a call: the handle if `url` is at the sidecar, otherwise none. For clients other
 * than fetch. Such a client must not follow redirects: it would take the header along to any host. Nor may it have a
 * proxy of its own; where the environment names one for the sidecar's address, this throws a ConfigurationError.
 */
export function headers(url, { outbound } = {}) {
  const origin = outboundOrigin(outbound);
  requireNoProxy(origin, "a client may send calls to the sidecar by HTTP_PROXY");
  const held = handle();
  return held !== undefined && isAt(origin, url) ? { [HEADER]: held } : {};
}

/** Tell if a URL is at the sidecar. User information in it is for somebody else. */
export function isAt(origin, text) {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url?.origin === origin && !url.username && !url.password;
}

/**
 * Refuse a process whose fetch sends what is for this origin to another proxy (Node 24: --use-env-proxy). The sidecar
 * is no proxy for fetch either, which asks for a tunnel.
 */
export function requireDirect(origin, environment = process.env, words = process.execArgv) {
  const flags = [...words, ...(environment.NODE_OPTIONS ?? "").split(/\s+/)];
  if (environment.NODE_USE_ENV_PROXY === "1" || flags.includes("--use-env-proxy")) {
    requireNoProxy(origin, "fetch sends calls to the sidecar by HTTP_PROXY", environment);
  }
}

function requireNoProxy(origin, problem, environment = process.env) {
  if (!(environment.http_proxy ?? environment.HTTP_PROXY)) {
    return;
  }
  const { hostname, port } = new URL(origin);
  const excepted = (environment.no_proxy ?? environment.NO_PROXY ?? "").split(/[\s,]+/);
  if (!["*", hostname, `${hostname}:${port || 80}`].some((one) => excepted.includes(one))) {
    throw new ConfigurationError(`${problem}: add ${hostname} to NO_PROXY`);
  }
}

function isLoopback(hostname) {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}
