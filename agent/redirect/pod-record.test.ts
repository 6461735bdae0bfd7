import { describe, expect, test } from 'vitest';
import { addressKey, PodFlag } from './ebpf-layout.ts';
import { makePodRecord } from './pod-record.ts';
import type { RedirectPlan, RedirectTarget } from './redirector.ts';

const PLAN: RedirectPlan = {
  inbound: true,
  outbound: true,
  failOpen: false,
  skipInboundPorts: [],
  skipOutboundPorts: [],
  skipOutboundCidrs: [],
  skipInboundCidrs: [],
};

function target(changes: Partial<RedirectTarget> = {}): RedirectTarget {
  return {
    podUid: 'uid-1',
    netnsFd: -1,
    netnsInode: 1n,
    netnsCookie: 9n,
    slot: 3,
    ips: ['10.0.0.5'],
    listeners: { inbound4: -1, inbound6: -1, outbound4: -1, outbound6: -1 },
    plan: PLAN,
    ...changes,
  };
}

const keys = (...addresses: string[]) => addresses.map(addressKey);

describe('addresses', () => {
  test('a dual-stack pod is reached by both', () => {
    const record = makePodRecord(target({ ips: ['10.0.0.5', 'fd00::5'] }), []);
    expect(record.addresses).toEqual(keys('10.0.0.5', 'fd00::5'));
    expect(record.entry.redirect4).toEqual(addressKey('10.0.0.5'));
    expect(record.entry.redirect6).toEqual(addressKey('fd00::5'));
    expect(record.entry.flags).toBe(PodFlag.outbound | PodFlag.inbound | PodFlag.hasIpv4 | PodFlag.hasIpv6);
  });

  test('the link-local address of the pod interface is its own too, but never a place to send to', () => {
    const record = makePodRecord(target(), [
      { interface: 'lo', address: '127.0.0.1' },
      { interface: 'lo', address: '::1' },
      { interface: 'eth0', address: '10.0.0.5' },
      { interface: 'eth0', address: 'fe80::1' },
      { interface: 'docker0', address: '172.17.0.1' },
    ]);
    expect(record.extraAddresses).toEqual(keys('fe80::1'));
    expect(record.entry.redirect6).toEqual(Buffer.alloc(16));
    expect(record.entry.flags & PodFlag.hasIpv6).toBe(0);
  });

  test('an address of a family that Kubernetes does not know of serves for egress', () => {
    const record = makePodRecord(target({ ips: ['fd00::5'] }), [
      { interface: 'eth0', address: 'fd00::5' },
      { interface: 'v4if0', address: '169.254.172.9' },
    ]);
    expect(record.entry.redirect4).toEqual(addressKey('169.254.172.9'));
    expect(record.extraAddresses).toEqual(keys('169.254.172.9'));
  });

  test.each([['127.0.0.1'], ['::1'], ['fe80::1'], ['224.0.0.1'], ['0.0.0.0'], ['not-an-ip']])(
    '"%s" is refused',
    (ip) => {
      expect(() => makePodRecord(target({ ips: [ip] }), [])).toThrow(`redirect pod address "${ip}"`);
    },
  );

  test('a pod without an address is refused', () => {
    expect(() => makePodRecord(target({ ips: [] }), [])).toThrow('expected at least one pod IP');
  });
});

describe('skips', () => {
  test('become keys for both directions', () => {
    const plan = {
      ...PLAN,
      skipInboundPorts: [{ from: 80, to: 81 }],
      skipOutboundPorts: [{ from: 25, to: 25 }],
      skipOutboundCidrs: ['10.9.0.0/16'],
      skipInboundCidrs: ['fd00::/8'],
    };
    const record = makePodRecord(target({ plan }), []);
    expect(record.portKeys).toHaveLength(2);
    expect(record.networkKeys).toHaveLength(2);
    expect(new Set([...record.portKeys, ...record.networkKeys].map((key) => key[12]))).toEqual(new Set([1, 2]));
  });

  test('a network that is none is named', () => {
    const plan = { ...PLAN, skipInboundCidrs: ['10.0.0.0/40'] };
    expect(() => makePodRecord(target({ plan }), [])).toThrow('skip network "10.0.0.0/40"');
  });
});

test('flags follow the plan', () => {
  const record = makePodRecord(target({ plan: { ...PLAN, inbound: false, outbound: false, failOpen: true } }), []);
  expect(record.entry.flags).toBe(PodFlag.failOpen | PodFlag.hasIpv4);
});
