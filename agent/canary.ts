// A canary: a connection made inside the pod to an address that nobody has. It arrives at the pod's worker if and only
// if the pod's connections are redirected, whatever programs, rules and sockets look like from outside. The worker knows
// it by a token that came over the link and tells of it over the link (api/worker-link.ts), so that nothing in the pod
// can answer in its place, and closes it: the application and the metrics of its traffic never see it.

import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { CANARY } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { contains, parseCidr, parseIp } from '#lib/ip-address.ts';
import { isErrno } from '#lib/libc.ts';
import { openTcpSocket } from '#lib/tcp-socket.ts';
import { inNetns } from './netns.ts';
import type { RedirectPlan } from './redirect/redirector.ts';
import type { SupervisedProcess } from './worker/supervisor.ts';

export type CanaryResult =
  | { kind: 'ok' }
  /** It cannot tell anything in this pod, or with this worker. */
  | { kind: 'skipped'; reason: string }
  /** `isSilent`: nobody refused it, it just did not arrive. */
  | { kind: 'failed'; cause: string; isSilent: boolean };

export interface CanaryRun {
  netnsFd: number;
  plan: RedirectPlan;
  family: 4 | 6;
  process: SupervisedProcess;
}

/** Sends one canary. Never rejects; takes at most {@link CANARY}.timeoutMs. */
export async function sendCanary({ netnsFd, plan, family, process }: CanaryRun): Promise<CanaryResult> {
  const address = family === 4 ? CANARY.ipv4 : CANARY.ipv6;
  const reason = whySkipped(plan, address, process);
  if (reason !== null) return { kind: 'skipped', reason };
  const token = randomBytes(CANARY.tokenBytes);
  const giveUp = new AbortController();
  let lost: NodeJS.ErrnoException | null = null;
  let socket: net.Socket | null = null;
  try {
    socket = openCanary(netnsFd, family);
    socket.once('error', (error) => {
      lost = error;
    });
    // Behind the token of an accepted canary comes a reset too: the answer may still be on the link.
    socket.once('close', () => setTimeout(() => giveUp.abort(), ANSWER_MS).unref());
    // The worker hears of the token first: it answers nothing else.
    const seen = process.canary(token, CANARY.timeoutMs, giveUp.signal);
    socket.connect({ host: address, port: CANARY.port });
    socket.write(token);
    await seen;
    return { kind: 'ok' };
  } catch (error) {
    return explain(lost ?? error, `canary to "${address}:${CANARY.port}"`);
  } finally {
    giveUp.abort();
    socket?.destroy();
  }
}

const ANSWER_MS = 200;

/** The socket is of the namespace it is made in; Node makes its own too late for that. */
function openCanary(netnsFd: number, family: 4 | 6): net.Socket {
  const fd = inNetns(netnsFd, () => openTcpSocket(family));
  const socket = new net.Socket({ fd, readable: true, writable: true });
  socket.unref();
  return socket.resume();
}

function whySkipped(plan: RedirectPlan, address: string, process: SupervisedProcess): string | null {
  if (!plan.outbound) return 'outbound connections are not redirected';
  if (!process.knowsCanaries) return 'worker of an older version';
  if (plan.skipOutboundPorts.some(({ from, to }) => from <= CANARY.port && CANARY.port <= to)) {
    return `outbound port ${CANARY.port} is skipped`;
  }
  const bytes = parseIp(address)!;
  const network = plan.skipOutboundCidrs.find((cidr) => contains(parseCidr(cidr)!, bytes));
  return network === undefined ? null : `outbound network ${network} is skipped`;
}

function explain(error: unknown, what: string): CanaryResult {
  // nftables look at packets: without a route there is none. The programs answer before routes are asked.
  if (isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH')) return { kind: 'skipped', reason: 'the pod has no route' };
  if (isErrno(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT'))
    return { kind: 'skipped', reason: 'the pod has no such address' };
  const isSilent = error instanceof HeddleError && error.code === 'link-timeout';
  const text = isSilent ? 'did not arrive at the worker' : error instanceof Error ? error.message : String(error);
  return { kind: 'failed', cause: `${what}: ${text}`, isSilent };
}
