// Opaque bytes to the application: authorized once, and again whenever the policy changes. A client that may not speak
// is cut without a byte; so is one whose permission is withdrawn while it speaks.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { errnoOf } from '../errno.ts';
import type { ConnectTarget } from '../io/connect.ts';
import { type Pump, pump } from '../io/pump.ts';
import type { LiveConnections } from '../live-connections.ts';
import { abortOnClose } from '../peek.ts';
import { authorize } from '../policy/authorization.ts';
import type { InboundConnection } from './connection.ts';
import type { InboundMetrics } from './metrics.ts';
import type { Ports } from './ports.ts';

export interface ForwardOptions {
  clock: Clock;
  log: Log;
  ports: Ports;
  metrics: InboundMetrics;
  live: LiveConnections;
  connect(target: ConnectTarget, signal?: AbortSignal): Promise<Duplex>;
  connectTimeoutMs(): number;
  detectTimeoutMs(): number;
}

/** Of linkerd2-proxy's chart, for sockets on both sides. */
const KEEP_ALIVE_MS = 10_000;

/** Serves the connection until it ends. Never rejects. */
export async function forward(connection: InboundConnection, options: ForwardOptions): Promise<void> {
  const { stream, target, tls, client } = connection;
  const { clock, log, ports, metrics, live } = options;
  const port = ports.get(target.port);
  const policy = port.current;
  const series = metrics.of(target, policy, tls);
  const authorization = policy.protocol.kind === 'invalid' ? null : authorize(policy.authorizations, client);
  series.connection(authorization ? 'allow' : 'deny', authorization);
  const settle = series.source.opened(stream);
  if (!authorization) {
    log.info('connection refused by policy', {
      client: connection.clientName,
      server: policy.ref.name,
      port: target.port,
    });
    stream.reset();
    settle('');
    return;
  }
  const controller = new AbortController();
  let pumping: Pump | null = null;
  const cut = (error: HeddleError): void => {
    controller.abort(error);
    pumping?.close(error);
  };
  const leave = live.enter({ drain: () => {}, cut });
  const unsubscribe = port.onChange((changed) => {
    if (changed.protocol.kind !== 'invalid' && authorize(changed.authorizations, client)) return;
    metrics.of(target, changed, tls).connection('terminate', null);
    cut(new HeddleError('policy-changed', 'connection is not permitted any more', { source: 'downstream' }));
  });
  const finish = (errno: string): void => {
    unsubscribe();
    leave();
    settle(errno);
  };
  abortOnClose(stream, controller);
  let application: Duplex;
  const transport = metrics.application(target);
  try {
    const timeoutMs = options.connectTimeoutMs();
    application = await options.connect({ ...target, timeoutMs, keepAliveMs: KEEP_ALIVE_MS }, controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) {
      transport.failed(errnoOf(error));
      series.tcpError('i/o');
      log.info('cannot connect to the application', { port: target.port, error });
    }
    stream.reset();
    finish('');
    return;
  }
  const settleApplication = transport.opened(application);
  pumping = pump(stream, application, {
    clock,
    ...(connection.received && { receivedFromLeft: connection.received }),
    onDone: (error) => {
      settleApplication(error ? errnoOf(error) : '');
      finish(error ? errnoOf(error) : '');
    },
  });
  // Cut while it connected: too late to stop the connect, not to stop the bytes.
  if (controller.signal.aborted) pumping.close(controller.signal.reason as HeddleError);
}
