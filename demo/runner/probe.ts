// Readiness as the kubelet finds it: an HTTP request or a connection from the node to the pod, at an interval, three
// failures in a row to lose it. Probes of other kinds are not run.

import { request } from 'node:http';
import { connect } from 'node:net';
import type { Container, Probe } from '#kube/resources.ts';

export const PROBE_TIMEOUT_MS = 1000;
const PERIOD_DEFAULT_SECONDS = 10;
/** Until ready for the first time, a pod is asked more often than its period says: the demo's viewer waits. */
const STARTING_PERIOD_MS = 200;
const FAILURES_MAX = 3;

export type ProbeTarget = { kind: 'http'; port: number; path: string } | { kind: 'tcp'; port: number };

/** Where a probe goes, named ports resolved; null for a kind that is not run here. */
export function targetOf(probe: Probe, container: Container): ProbeTarget | null {
  const portOf = (port: number | string): number =>
    container.ports?.find(({ name }) => name === port)?.containerPort ?? Number(port);
  if (probe.httpGet) return { kind: 'http', port: portOf(probe.httpGet.port), path: probe.httpGet.path ?? '/' };
  if (probe.tcpSocket) return { kind: 'tcp', port: portOf(probe.tcpSocket.port) };
  return null;
}

/** One attempt: HTTP is good from 200 to 399, TCP when the connection opens. */
export async function attempt(host: string, target: ProbeTarget): Promise<boolean> {
  return target.kind === 'http' ? await attemptHttp(host, target) : await attemptTcp(host, target.port);
}

async function attemptHttp(host: string, { port, path }: { port: number; path: string }): Promise<boolean> {
  return await new Promise((resolve) => {
    const sent = request({
      host,
      port,
      path,
      agent: false,
      timeout: PROBE_TIMEOUT_MS,
      headers: { 'user-agent': 'kube-probe/1.35' },
    });
    sent.on('response', (response) => {
      response.resume();
      resolve(response.statusCode! >= 200 && response.statusCode! < 400);
    });
    sent.on('timeout', () => sent.destroy());
    sent.on('error', () => resolve(false));
    sent.on('close', () => resolve(false));
    sent.end();
  });
}

async function attemptTcp(host: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host, port, timeout: PROBE_TIMEOUT_MS });
    const end = (isGood: boolean): void => {
      socket.destroy();
      resolve(isGood);
    };
    socket.on('connect', () => end(true));
    socket.on('timeout', () => end(false));
    socket.on('error', () => end(false));
  });
}

/** Follows the readiness of one container until closed. */
export class ReadinessProbe {
  #isClosed = false;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #isReady = false;
  readonly #options: { host: string; target: ProbeTarget; periodMs: number; onChange: (isReady: boolean) => void };

  constructor(options: { host: string; probe: Probe; target: ProbeTarget; onChange: (isReady: boolean) => void }) {
    const { host, target, onChange, probe } = options;
    this.#options = { host, target, onChange, periodMs: (probe.periodSeconds ?? PERIOD_DEFAULT_SECONDS) * 1000 };
    this.#timer = setTimeout(() => void this.#round(), (probe.initialDelaySeconds ?? 0) * 1000);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  async #round(): Promise<void> {
    const isGood = await attempt(this.#options.host, this.#options.target);
    if (this.#isClosed) return;
    this.#failures = isGood ? 0 : this.#failures + 1;
    const isReady = isGood || (this.#isReady && this.#failures < FAILURES_MAX);
    if (isReady !== this.#isReady) {
      this.#isReady = isReady;
      this.#options.onChange(isReady);
    }
    const periodMs = this.#isReady ? this.#options.periodMs : Math.min(STARTING_PERIOD_MS, this.#options.periodMs);
    this.#timer = setTimeout(() => void this.#round(), periodMs);
  }
}
