// A web server on loopback that records what it is sent, and redirects where a test asks for it.
import { createServer } from "node:http";

export async function recording() {
  const recorder = { requests: [], redirects: {}, origin: "" };
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      const shown = request.headersDistinct["delegation-handle"];
      recorder.requests.push({ target: request.url, method: request.method, shown, fields: request.headers, body });
      const [status, location] = recorder.redirects[request.url] ?? [200, undefined];
      response.writeHead(status, location === undefined ? {} : { location }).end(request.url);
    });
  });
  recorder.origin = await listening(server);
  recorder.close = () => {
    server.closeAllConnections();
    server.close();
  };
  Object.defineProperty(recorder, "handles", { get: () => recorder.requests.map((one) => one.shown) });
  return recorder;
}

export async function listening(server) {
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${server.address().port}`;
}
