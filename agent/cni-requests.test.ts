import { closeSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { CniCode, type CniRequest } from '#api/cni-message.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { CniRequests } from './cni-requests.ts';
import type { Desired } from './desired.ts';
import { createNetns, identifyNetns } from './netns.ts';
import { PodCache } from './pods.ts';
import type { Reconciler } from './reconcile.ts';

const netnsFd = createNetns();
afterAll(() => closeSync(netnsFd));

const MESHED = { kind: 'meshed', problems: [] } as unknown as Desired;

/** ADD of a pod that is meshed when asked, and `desired` once it is its turn. */
function add(desired: Desired) {
  const reconciler = { desired: () => MESHED, add: async () => desired } as unknown as Reconciler;
  const pods = new PodCache({ nodeName: 'n1', clock: new FakeClock() });
  const requests = new CniRequests({ reconciler, pods, log: silentLog, notReady: () => null });
  const request = {
    op: 'ADD',
    containerId: 'c1',
    ifName: 'eth0',
    network: 'n',
    netnsPath: '/none',
    netnsInode: Number(identifyNetns(netnsFd).inode),
    pod: { namespace: 'shop', name: 'a', uid: 'uid-a' },
    annotations: {},
    ips: ['10.0.0.1'],
    deadlineMs: 5_000,
  } as unknown as CniRequest;
  return requests.add(request, netnsFd, new AbortController().signal);
}

test.each(['unknown', 'waiting'] as const)(
  'a meshed pod that became %s while its ADD waited is tried again, never let pass as unmeshed',
  async (kind) => {
    expect(await add({ kind, reason: 'pod "shop/a" is gone' })).toMatchObject({
      code: CniCode.tryAgainLater,
      outcome: 'meshed',
    });
  },
);

test('what is decided in the end is told', async () => {
  expect(await add({ kind: 'unmeshed', reason: 'disabled-by-pod', problems: ['a typo'] })).toMatchObject({
    code: CniCode.ok,
    outcome: 'unmeshed',
    warnings: ['a typo'],
  });
  expect(await add(MESHED)).toMatchObject({ code: CniCode.ok, outcome: 'meshed' });
});
