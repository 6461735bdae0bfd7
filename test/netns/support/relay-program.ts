// The smallest thing that can stand where a worker stands: inherits the pod's four listeners, copies bytes both ways
// and remembers where connections were going. Has no privileges and needs none.

import net from 'node:net';
import { LISTENER_FIRST_FD, LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { capabilities } from '#lib/libc.ts';
import { originalDestination } from '#lib/tcp-socket.ts';
import type { RelayReport } from './relay.ts';

const CONNECTIONS_MAX = Number(process.argv[2]);
const REMEMBERED_MAX = 4096;

const report: RelayReport = {
  connections: { inbound4: 0, inbound6: 0, outbound4: 0, outbound6: 0 },
  destinations: [],
  refused: 0,
  capEffective: capabilities().effective.toString(16),
};
const servers: net.Server[] = [];
const sockets = new Set<net.Socket>();

function total(): number {
  return Object.values(report.connections).reduce((sum, count) => sum + count, 0);
}

function destinationOf(name: ListenerName, socket: net.Socket): { address: string; port: number } | null {
  const { localAddress: address = '', localPort: port = 0 } = socket;
  const listener = servers[LISTENER_NAMES.indexOf(name)]!.address() as net.AddressInfo;
  // Steered connections keep the address they were made to. At the listener's own port one was redirected, or dialled
  // by hand; of the latter, connection tracking says that it was going where it is.
  if (name.startsWith('inbound') && port !== listener.port) return { address, port };
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const original = originalDestination(fd, name.endsWith('6') ? 6 : 4);
  return original?.address === address && original.port === port ? null : original;
}

function accept(name: ListenerName, socket: net.Socket): void {
  const destination = destinationOf(name, socket);
  if (!destination || total() >= CONNECTIONS_MAX) {
    report.refused++;
    socket.destroy();
    return;
  }
  report.connections[name]++;
  report.destinations.push({ name, ...destination });
  if (report.destinations.length > REMEMBERED_MAX) report.destinations.shift();
  const upstream = net.connect({ host: destination.address, port: destination.port, allowHalfOpen: true });
  for (const [one, other] of [
    [socket, upstream],
    [upstream, socket],
  ] as const) {
    sockets.add(one);
    one.pipe(other);
    one.on('error', () => other.resetAndDestroy());
    one.on('close', () => {
      sockets.delete(one);
      if (servers.length === 0 && sockets.size === 0) process.exit(0);
    });
  }
}

for (const [index, name] of LISTENER_NAMES.entries()) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => accept(name, socket));
  server.listen({ fd: LISTENER_FIRST_FD + index });
  servers.push(server);
}

process.on('disconnect', () => process.exit(0));
process.on('message', (message: 'report' | 'drain') => {
  if (message === 'report') process.send!(report);
  if (message === 'drain') {
    for (const server of servers.splice(0)) server.close();
    if (sockets.size === 0) process.exit(0);
  }
});
process.send!('ready');
