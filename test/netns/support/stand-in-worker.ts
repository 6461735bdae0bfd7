// A worker for tests of the agent: speaks the link as api/worker-link.ts says, answers every connection on its listeners
// with a line that names it, and obeys drain. `crash`, `hang`, `deaf` and `garbage` as first words of a connection make
// it misbehave. Runs from a staged runtime in place of proxy/main.ts.

import net from 'node:net';
import { encodeLinkFrame, encodeLinkJson, LinkDecoder, parseLinkJson } from '#api/link-codec.ts';
import {
  CONTROL_FD,
  LINK_VERSION,
  LISTENER_FIRST_FD,
  LISTENER_NAMES,
  LinkFrame,
  type LinkState,
  WorkerEnvironment,
} from '#api/worker-link.ts';
import { sendDescriptors } from '#lib/unix-descriptors.ts';

if (process.argv.includes('--check-config')) process.exit(0);

const podUid = process.env[WorkerEnvironment.podUid]!;
const workerVersion = process.env[WorkerEnvironment.workerVersion]!;
const started = Date.now();
let config: { pod: { name: string } } | null = null;
let state: LinkState['state'] = 'starting';
let connections = 0;
/** Takes connections and does nothing with them. */
let isDeaf = false;
let control: net.Socket | null = null;
/** Tokens of canaries, with their streams. */
const canaries = new Map<string, number>();

function log(level: string, message: string): void {
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), level, message })}\n`);
}

function tellState(): void {
  const value: LinkState = { state, reason: config ? '' : 'no configuration', connections, certificateExpires: 0 };
  control?.write(encodeLinkJson(LinkFrame.state, 0, value));
}

const servers = LISTENER_NAMES.map((name, index) => {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    if (isDeaf) return;
    connections++;
    socket.on('error', () => {});
    socket.on('close', () => {
      connections--;
      if (state === 'draining' && connections === 0) process.exit(0);
    });
    socket.on('data', (bytes) => {
      const canary = canaries.get(bytes.toString('hex'));
      if (canary !== undefined) {
        control?.write(encodeLinkFrame(LinkFrame.canarySeen, canary));
        socket.resetAndDestroy();
        return;
      }
      const text = bytes.toString().trim();
      if (text === 'crash') process.abort();
      if (text === 'garbage') control?.write(Buffer.alloc(100_000, 0xff));
      if (text === 'hang') for (;;);
      if (text === 'deaf') isDeaf = true;
      socket.write(
        `${JSON.stringify({ name, pid: process.pid, uid: process.getuid!(), pod: config?.pod.name ?? null, text })}\n`,
      );
    });
    socket.on('end', () => socket.end());
  });
  server.listen({ fd: LISTENER_FIRST_FD + index });
  return server;
});

const controlServer = net.createServer((socket) => {
  control?.destroy();
  control = socket;
  socket.on('error', () => {});
  const decoder = new LinkDecoder();
  socket.write(
    encodeLinkJson(LinkFrame.hello, 0, {
      linkVersion: LINK_VERSION,
      workerVersion,
      pid: process.pid,
      podUid,
      startedMs: started,
    }),
  );
  tellState();
  socket.on('data', (chunk) =>
    decoder.push(chunk as Buffer, (type, stream, payload) => take(socket, type, stream, payload)),
  );
});
controlServer.listen({ fd: CONTROL_FD });

function take(socket: net.Socket, type: number, stream: number, payload: Buffer): void {
  if (type === LinkFrame.config) {
    config = parseLinkJson(payload) as unknown as typeof config;
    if (state === 'starting') {
      state = 'ready';
      log('info', `configured for ${config!.pod.name}`);
    }
    tellState();
  } else if (type === LinkFrame.ping) socket.write(encodeLinkFrame(LinkFrame.pong, stream));
  else if (type === LinkFrame.canary) canaries.set(payload.toString('hex'), stream);
  else if (type === LinkFrame.metricsRequest) {
    const text = `# TYPE stand_in_total counter\nstand_in_total{pod="${config?.pod.name}"} 1\n`;
    socket.write(encodeLinkFrame(LinkFrame.metricsChunk, stream, Buffer.from(text)));
    socket.write(encodeLinkFrame(LinkFrame.metricsChunk, stream));
  } else if (type === LinkFrame.listenersRequest) {
    const frame = encodeLinkFrame(LinkFrame.listeners, stream, Buffer.from(JSON.stringify(LISTENER_NAMES)));
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    sendDescriptors(
      fd,
      frame,
      LISTENER_NAMES.map((_, index) => LISTENER_FIRST_FD + index),
    );
  } else if (type === LinkFrame.drain) {
    state = 'draining';
    tellState();
    for (const server of servers) server.close();
    const { graceMs } = parseLinkJson(payload) as { graceMs: number };
    setTimeout(() => process.exit(0), graceMs).unref();
    if (connections === 0) setImmediate(() => process.exit(0));
  }
}
