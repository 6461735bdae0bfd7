// The I/O layer alone as a proxy, to measure it beside others: HTTP/1.1 in, HTTP/1.1 out, with mesh TLS on neither
// side, on the way out (`--tls-out`), or on the way in (`--tls-in`); or opaque bytes (`--tcp`).
//   node bench/io-proxy.ts LISTEN_PORT UPSTREAM_PORT [--tls-in|--tls-out] [--tcp] [--certificates DIRECTORY]

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { systemClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { openTcpListener } from '#lib/tcp-socket.ts';
import { connectTcp } from '#proxy/io/connect.ts';
import { createHttp1Pool } from '#proxy/io/http1-pool.ts';
import { serveHttp1 } from '#proxy/io/http1-server.ts';
import { listenFd } from '#proxy/io/listen.ts';
import { pump } from '#proxy/io/pump.ts';
import { selfTestHandles } from '#proxy/io/stream-handle.ts';
import { createTlsContext } from '#proxy/io/tls.ts';

const [listenPort, upstreamPort, ...flags] = process.argv.slice(2);
const isTlsIn = flags.includes('--tls-in');
const isTlsOut = flags.includes('--tls-out');
const directory = flags[flags.indexOf('--certificates') + 1] ?? '.';
const read = (name: string): string => readFileSync(path.join(directory, name), 'utf8');
const tls =
  isTlsIn || isTlsOut
    ? createTlsContext({
        anchorsPem: read('anchor.pem'),
        certificate: { keyPem: read('leaf.p8'), chainPem: read('leaf.pem') },
      })
    : null;

const HANDSHAKE = { timeoutMs: 10_000 };

async function connectUpstream(signal?: AbortSignal): Promise<Duplex> {
  const stream = await connectTcp({ address: '127.0.0.1', port: Number(upstreamPort), timeoutMs: 1000 }, signal);
  return isTlsOut ? await tls!.connect(stream, { ...HANDSHAKE, serverName: 'peer.test' }, signal) : stream;
}

const pool = createHttp1Pool({ clock: systemClock, connect: connectUpstream });

async function serve(accepted: Duplex): Promise<void> {
  const stream = isTlsIn ? await tls!.accept(accepted, HANDSHAKE) : accepted;
  if (flags.includes('--tcp')) pump(stream, await connectUpstream(), { clock: systemClock });
  else serveHttp1(stream, { service: pool, clock: systemClock, clientIdentity: null });
}

if (!(await selfTestHandles())) console.error('handles cannot be used');
const fd = openTcpListener({ address: '127.0.0.1', port: Number(listenPort), backlog: 1024 });
listenFd(fd, (accepted) => {
  serve(accepted).catch((error: unknown) => console.error(error));
});
