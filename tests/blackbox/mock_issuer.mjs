// npm oauth2-mock-server, for tests: prints its URL, then takes a command a line.
// `rotate`: from now on there is another key and the old one is gone.
// A token request may state claims as JSON in the parameter `claims`.
import { createInterface } from "node:readline";
import { OAuth2Server } from "oauth2-mock-server";

let server;

async function start(port) {
  server = new OAuth2Server();
  await server.issuer.keys.generate("RS256");
  await server.start(port, "127.0.0.1");
  server.service.on("beforeTokenSigning", (token, request) => {
    Object.assign(token.payload, JSON.parse(request.body.claims ?? "{}"));
  });
}

await start(0);
console.log(server.issuer.url);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "rotate") {
    const { port } = server.address();
    await server.stop();
    await start(port);
  }
  console.log("done");
}
await server.stop();
