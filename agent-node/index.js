// The handle of the request that an agent serves, sent with its calls to the sidecar and with no other call.
export { HEADER, carry, handle, serving } from "./handles.js";
export { ConfigurationError, headers } from "./outbound.js";
export { forwarding } from "./fetch.js";
export { fastifyHook, listener, middleware } from "./servers.js";
