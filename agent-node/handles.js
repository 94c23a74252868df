// The handle of the request being served, in an AsyncLocalStorage: requests served at the same time never see each
// other's. What a request starts keeps its handle. A listener of an event does not: see `carry`.
import { AsyncLocalStorage } from "node:async_hooks";

export const HEADER = "delegation-handle";

const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/; // RFC 6750 section 2.1
const storage = new AsyncLocalStorage();

/** Return the handle of the request being served; undefined outside of one, or if it has none. */
export function handle() {
  return storage.getStore();
}

/** Run `work` for a request with this handle; undefined: without one, whatever is served outside. */
export function serving(handle, work) {
  return storage.run(handle, work);
}

/** Return a function that runs, from any event or queue, with the handle that is current now. */
export function carry(work) {
  const held = handle();
  return function carried(...words) {
    return storage.run(held, () => work.apply(this, words));
  };
}

/** Return the handle of an incoming message of node:http; undefined if there is none, several, or no clear one. */
export function shown(message) {
  return sole(message.headersDistinct[HEADER] ?? []);
}

/** Return the one value of a request's header lines; undefined if there is none, several, or one that is no handle. */
export function sole(values) {
  return values.length === 1 && TOKEN.test(values[0]) ? values[0] : undefined;
}
