// The outbound proxy, top to bottom as a connection walks through it:
//
//   accept      where did the application want to go?          outbound/accept.ts
//   discover    what do profile and policy say about that?     outbound/discover.ts, target.ts, resolve.ts
//   protocol    HTTP/1, HTTP/2, TLS or opaque                  outbound/accept.ts
//   logical     which route takes the request?                 outbound/logical.ts, profile-logical.ts
//   retry       deadline, attempts, budget                     outbound/timeout.ts, retry.ts
//   concrete    which backend, which endpoint?                 outbound/distribute.ts, concrete.ts, dispatch.ts
//   endpoint    breaker, connections, mTLS                     outbound/endpoint.ts, http-endpoint.ts, dial.ts

import type { WorkerConfig } from '#api/worker-config.ts';
import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { Log } from '#lib/log.ts';
import type { WatchTransport } from './control/watch.ts';
import { answerErrorsLayer } from './error-layer.ts';
import { IN_FLIGHT_MAX, InFlight } from './in-flight.ts';
import { connectTcp } from './io/connect.ts';
import { createHttp1Pool } from './io/http1-pool.ts';
import { serveHttp1 } from './io/http1-server.ts';
import { createHttp2Pool } from './io/http2-pool.ts';
import { serveHttp2 } from './io/http2-server.ts';
import { pump } from './io/pump.ts';
import type { TlsContext } from './io/tls.ts';
import type { LiveConnections } from './live-connections.ts';
import type { Recorder } from './observe/recorder.ts';
import { acceptOutbound } from './outbound/accept.ts';
import { Backends } from './outbound/backends.ts';
import { createDial, type DialOptions } from './outbound/dial.ts';
import { Discover } from './outbound/discover.ts';
import type { Original } from './outbound/resolve.ts';

export interface OutboundOptions {
  clock: Clock;
  log: Log;
  /** Numbers in [0, 1): balancing, jitter, weights. */
  random: () => number;
  recorder: Recorder;
  transport: WatchTransport;
  live: LiveConnections;
  /** The configuration of the moment. Identity of workload and node do not change while a worker lives. */
  config(): WorkerConfig;
  /** Null while the pod has no identity. */
  tls(): TlsContext | null;
  /** How connections are made; simulations bring their own network. */
  connect?: DialOptions['connect'];
}

export interface Outbound {
  /** Serves a connection that the application made to `original`, to its end. Never rejects. */
  accept(stream: Duplex, original: Original): Promise<void>;
  /** Targets whose answers may be out of date. */
  staleness(): { targets: number; sinceMs: number | null };
  /** Ends all watches and drains all endpoints. Connections that are open live on until cut. */
  close(): void;
}

export function createOutbound(options: OutboundOptions): Outbound {
  const { clock, log, random, recorder, transport, live, config, tls } = options;
  const isLocal = (address: string): boolean => config().pod.ips.includes(address);
  const discovery = {
    transport,
    clock,
    log,
    random,
    destinationContext: config().outbound.destinationContext,
    policyWorkload: config().outbound.policyWorkload,
    idleMs: config().outbound.discoveryIdleMs,
  };
  const detectTimeoutMs = (): number => config().outbound.detectTimeoutMs;
  const shared = { clock, log, random, recorder, discovery, isLocal, detectTimeoutMs };

  // Endpoints: TCP, mTLS to the identity that discovery names, the transport header.
  const dial = createDial({
    clock,
    tls,
    connect: options.connect ?? connectTcp,
    connectTimeoutMs: () => config().outbound.connectTimeoutMs,
  });
  // Backends outlive the stacks above them, so that a policy update costs no connection.
  const pools = { http1: createHttp1Pool, http2: createHttp2Pool };
  const backends = new Backends({ ...shared, dial, pools });
  // Targets compose routes over backends whenever an answer changes.
  const discover = new Discover({
    ...shared,
    backends,
    pump,
    // One bound over all targets: what it protects is this worker.
    inFlight: new InFlight(IN_FLIGHT_MAX),
    // Outermost: whatever fails below leaves as a response, and only here is it decided what the client learns.
    answerErrors: answerErrorsLayer({ recorder, direction: 'outbound', withDetails: true }),
  });
  const proxyPort = (): number => config().outbound.proxyPort;
  const accept = { ...shared, discover, live, proxyPort, serveHttp1, serveHttp2 };
  return {
    accept: (stream, original) => acceptOutbound(stream, original, accept),
    staleness: () => discover.staleness(),
    close: () => {
      discover.close();
      backends.close();
    },
  };
}
