// An endpoint of Node's ws, as tests/foreign.py describes it.
"use strict";

const readline = require("readline");
const { WebSocket, WebSocketServer } = require("ws");

const [role, deflate] = process.argv.slice(2);
// From the first byte on: by itself ws compresses from 1 KiB on.
const perMessageDeflate = deflate === "deflate" ? { threshold: 0 } : false;

let current = null;

function tell(...words) {
  const encode = (word) => (Buffer.isBuffer(word) ? { base64: word.toString("base64") } : word);
  process.stdout.write(JSON.stringify(words.map(encode)) + "\n");
}

function decode(word) {
  return typeof word === "string" ? word : Buffer.from(word.base64, "base64");
}

function attend(websocket) {
  current = websocket;
  websocket.on("message", (data, isBinary) => tell("message", isBinary ? data : String(data)));
  websocket.on("ping", (payload) => tell("ping", payload));
  websocket.on("pong", (payload) => tell("pong", payload));
  websocket.on("close", (code, reason) => tell("close", code, String(reason)));
  // Its close code tells what a test wants to know.
  websocket.on("error", (error) => console.error(String(error)));
}

function dial(url) {
  const websocket = new WebSocket(url, { perMessageDeflate });
  websocket.on("open", () => tell("open"));
  websocket.on("unexpected-response", (request, response) => {
    response.resume();
    tell("refused", response.statusCode);
  });
  attend(websocket);
}

const commands = {
  connect: dial,
  send: (message) => current.send(decode(message)),
  fragments: (pieces) =>
    pieces.forEach((piece, at) => current.send(decode(piece), { fin: at === pieces.length - 1 })),
  ping: (payload) => current.ping(decode(payload)),
  close: (code, reason) => current.close(code, reason),
};

if (role === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate });
  server.on("listening", () => tell("listening", server.address().port));
  server.on("connection", (websocket) => {
    attend(websocket);
    tell("open");
  });
}

const input = readline.createInterface({ input: process.stdin });
input.on("line", (line) => {
  const [word, ...words] = JSON.parse(line);
  commands[word](...words);
});
input.on("close", () => process.exit(0));
