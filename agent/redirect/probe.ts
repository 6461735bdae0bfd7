// Which redirection works on this node is found by doing it, not by comparing versions: a namespace of our own is
// attached like a pod, a connection is made in it to an address that nobody has, and must arrive at the listener with
// that address as its original destination.

import { closeSync } from 'node:fs';
import { HeddleError } from '#lib/errors.ts';
import { close } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { createVethPair, setInterfaceAddress, setInterfaceUp } from '#lib/network-interface.ts';
import { acceptSocket, openTcpSocket, originalDestination, startConnect, waitForSocket } from '#lib/tcp-socket.ts';
import { closeListeners, createNetns, identifyNetns, inNetns, openListeners } from '../netns.ts';
import { type ListenOn, PROBE_SLOT, type Redirector, type RedirectTarget } from './redirector.ts';

const PROBE_UID = 'heddle-probe';
const INTERFACE = 'heddle0';
/** Addresses for documentation (RFC 5737): nobody's. */
const OWN_ADDRESS = '192.0.2.1';
const DESTINATION = { address: '192.0.2.99', port: 7 };
/** Loopback is immediate; this only bounds a connection that goes nowhere. The agent stands still meanwhile. */
const WAIT_MS = 1000;

export interface Choice {
  redirector: Redirector;
  /** Those before it and why they do not work here. */
  rejected: { kind: Redirector['kind']; reason: HeddleError }[];
}

/**
 * Starts the candidates in turn and returns the first that redirects a connection; the others are uninstalled. Pods
 * that are attached already are never given to another kind: the kind that has them is taken, whatever the order, or
 * its failure is thrown. `unwanted` are kinds that must not be chosen and must not have pods either.
 */
export function chooseRedirector(
  candidates: readonly Redirector[],
  log: Log,
  unwanted: readonly Redirector[] = [],
): Choice {
  const stray = unwanted.find(hasPods);
  if (stray) {
    throw new HeddleError(
      'redirect-mixed',
      `redirect by "${candidates.map(({ kind }) => kind).join(', ')}": pods of this node are redirected by "${stray.kind}", expected that kind, or a node without meshed pods`,
    );
  }
  const holder = candidates.find(hasPods);
  const rejected: Choice['rejected'] = [];
  for (const redirector of holder ? [holder] : candidates) {
    try {
      redirector.start();
      probeRedirector(redirector);
      return { redirector, rejected };
    } catch (error) {
      if (!(error instanceof HeddleError) || redirector === holder) throw error;
      rejected.push({ kind: redirector.kind, reason: error });
      log.warn('redirection does not work on this node', { kind: redirector.kind, error });
      redirector.uninstall();
    }
  }
  const reasons = rejected.map(({ kind, reason }) => `${kind}: ${reason.message}`).join('; ');
  throw new HeddleError('no-redirection', `redirect pods on this node: expected eBPF or nftables to work (${reasons})`);
}

/** Throws `probe-failed` unless the started redirector carries a connection and its original destination. */
export function probeRedirector(redirector: Redirector): void {
  const netnsFd = createNetns();
  try {
    inNetns(netnsFd, () => {
      setInterfaceUp('lo');
      // The destination must lie behind another interface than lo, as a pod's destinations do.
      createVethPair(INTERFACE);
      setInterfaceAddress(INTERFACE, OWN_ADDRESS);
      setInterfaceUp(INTERFACE);
    });
    const target = probeTarget(netnsFd, redirector.listenOn);
    try {
      redirector.attach(target);
      connectThrough(target);
    } finally {
      redirector.detach(target);
      closeListeners(target.listeners);
    }
  } finally {
    closeSync(netnsFd);
  }
}

function probeTarget(netnsFd: number, listenOn: ListenOn): RedirectTarget {
  const { inode, cookie } = identifyNetns(netnsFd);
  return {
    podUid: PROBE_UID,
    netnsFd,
    netnsInode: inode,
    netnsCookie: cookie,
    slot: PROBE_SLOT,
    ips: [OWN_ADDRESS],
    listeners: openListeners(netnsFd, listenOn),
    plan: {
      inbound: true,
      outbound: true,
      failOpen: false,
      skipInboundPorts: [],
      skipOutboundPorts: [],
      skipOutboundCidrs: [],
      skipInboundCidrs: [],
    },
  };
}

function connectThrough(target: RedirectTarget): void {
  const listener = target.listeners.outbound4;
  const client = inNetns(target.netnsFd, () => openTcpSocket(4));
  try {
    startConnect(client, DESTINATION.address, DESTINATION.port);
    const accepted = waitForSocket(listener, 'in', WAIT_MS) ? acceptSocket(listener) : null;
    if (accepted === null) throw failed('the connection did not arrive at the listener');
    try {
      const found = originalDestination(accepted, 4);
      if (found?.address === DESTINATION.address && found.port === DESTINATION.port) return;
      throw failed(`the original destination is "${found?.address}:${found?.port}"`);
    } finally {
      close(accepted);
    }
  } finally {
    close(client);
  }
}

function failed(what: string): HeddleError {
  return new HeddleError(
    'probe-failed',
    `probe a connection to "${DESTINATION.address}:${DESTINATION.port}": expected it redirected, ${what}`,
  );
}

function hasPods(redirector: Redirector): boolean {
  return redirector.attachedPods().some((uid) => uid !== PROBE_UID);
}
