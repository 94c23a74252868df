import type { ChannelCredentials, ClientOptions, Interceptor, ServerInterceptor } from "@grpc/grpc-js";
import type { Options } from "./index.js";

/** An interceptor for a server: `new Server({ interceptors: [serverInterceptor] })`, before all others. */
export const serverInterceptor: ServerInterceptor;

/**
 * Return the arguments of a client that calls the sidecar, sends the handle with each call, and uses no proxy:
 * `new Customers(...channel("crm"))`. `authority` is `match.host` of the outbound route to the next hop. Interceptors
 * in the options of one call replace those of the client, so such a call sends no handle.
 */
export function channel(
  authority?: string,
  options?: ClientOptions & Options,
): [address: string, credentials: ChannelCredentials, options: ClientOptions];

/**
 * Return the interceptors for a client whose address, without TLS, is `target`: one if that is the sidecar's, spelled
 * as host and port; none otherwise. Throws a ConfigurationError where the environment names a proxy for it.
 */
export function clientInterceptors(target: string, options?: Options): Interceptor[];
