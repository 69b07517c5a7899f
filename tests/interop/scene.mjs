// Runs command lines of the unmodified Heroku CLI one after the other in this one process; scene.py is the other end.
//
//     node scene.mjs PROGRAM PORT     PROGRAM is the CLI's own entry, 127.0.0.1:PORT takes the conversation
//
// A line in is a JSON list of arguments, a line out the JSON of {code, stdout, stderr} of that command. Each command
// is an evaluation of its own of the CLI's entry, so that what the entry does per process is done per command; only the
// modules below it are loaded once. The program's standard output and standard error must be files of its own: what a
// command wrote is read back from them, and no stream is replaced. What is replaced is process.exit, which would
// end them all.

import { fstatSync, readSync, realpathSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";

const [node, , program, port] = process.argv;
const entry = pathToFileURL(realpathSync(program)).href;
const fresh = { directory: process.cwd(), environment: { ...process.env } };
const exit = process.exit;
// What ends a command's code at its process.exit, as the end of the process would.
const gone = Symbol("exited");
// As Node ends when nothing is left to do and the entry still awaits something.
const NEVER_SETTLED = 13;

const lines = [];
let number = 0;
// The command that runs: {from, settled, end?}.
let running;

const written = () => [fstatSync(1).size, fstatSync(2).size];

function text(file, from, to) {
  const bytes = Buffer.alloc(to - from);
  readSync(file, bytes, 0, bytes.length, from);
  return bytes.toString();
}

process.exit = (code = process.exitCode) => {
  // A process exits once, and writes no more: what the CLI's error handler makes of the thrown symbol does not count.
  running.end ??= { code: Number(code ?? 0), to: written() };
  throw gone;
};

process.on("uncaughtException", (error) => {
  if (error === gone) return;
  console.error(inspect(error));
  exit(1);
});

const channel = net.connect(Number(port), "127.0.0.1");
channel.on("close", () => exit(0));
createInterface(channel).on("line", (line) => {
  lines.push(JSON.parse(line));
  next();
});

function next() {
  if (running || !lines.length) return;
  const command = { from: written(), settled: false };
  running = command;
  for (const name of Object.keys(process.env)) if (!(name in fresh.environment)) delete process.env[name];
  Object.assign(process.env, fresh.environment);
  process.chdir(fresh.directory);
  process.exitCode = undefined;
  process.argv = [node, program, ...lines.shift()];
  // The loop runs dry when the command has nothing left to do, not only when its promise settles.
  channel.unref();
  number += 1;
  const over = () => {
    command.settled = true;
  };
  import(`${entry}?${number}`).then(over, (error) => {
    over();
    if (error !== gone) throw error;
  });
}

process.on("beforeExit", () => {
  if (!running) return;
  const { from, settled, end } = running;
  const { code, to } = end ?? { code: settled ? (process.exitCode ?? 0) : NEVER_SETTLED, to: written() };
  // A connection that was kept for the next request would not outlive a process.
  http.globalAgent.destroy();
  https.globalAgent.destroy();
  running = undefined;
  channel.ref();
  channel.write(`${JSON.stringify({ code, stdout: text(1, from[0], to[0]), stderr: text(2, from[1], to[1]) })}\n`);
  next();
});
