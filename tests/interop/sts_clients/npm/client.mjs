// One exchange with openid-client over TLS with an X.509-SVID. It finds the endpoints by discovery (RFC 8414).
// It reads a question as JSON from standard input, and writes what the client says of the answer.
import { readFileSync } from "node:fs";
import * as client from "openid-client";
import { Agent, fetch } from "undici";

const asked = JSON.parse(readFileSync(0, "utf8"));
const dispatcher = new Agent({
  connect: {
    minVersion: "TLSv1.3",
    cert: readFileSync(asked.certificate),
    key: readFileSync(asked.key),
    ca: readFileSync(asked.bundle),
    // An SVID has a URI and no DNS name.
    checkServerIdentity: (_host, certificate) =>
      certificate.subjectaltname === `URI:${asked.peer}` ? undefined : new Error("another workload answers"),
  },
});
const over = { [client.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) };

const told = {};
try {
  const configuration = await client.discovery(
    new URL(asked.issuer), asked.client_id, {}, client.TlsClientAuth(), { algorithm: "oauth2", ...over });
  const parameters = new URLSearchParams();
  for (const name of ["subject_token", "subject_token_type", "actor_token", "actor_token_type"])
    if (asked[name]) parameters.set(name, asked[name]);
  for (const audience of asked.audience) parameters.append("audience", audience);
  parameters.set("scope", asked.scope.join(" "));
  const grant = "urn:ietf:params:oauth:grant-type:token-exchange";
  const answer = await client.genericGrantRequest(configuration, grant, parameters);
  told.access_token = answer.access_token;
  told.token_type = answer.token_type;
} catch (error) {
  if (error instanceof client.ResponseBodyError) told.error = error.error;
  else told.failed = String(error.cause ?? error);
}
process.stdout.write(JSON.stringify(told));
