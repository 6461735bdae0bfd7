import { closeSync, openSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  closeListeners,
  createNetns,
  duplicateListeners,
  identifyNetns,
  inNetns,
  openListeners,
  openNetns,
} from '#agent/netns.ts';
import { isOpen } from '#lib/libc.ts';
import { isListening, localAddress, netnsCookie } from '#lib/tcp-socket.ts';
import { Network } from './support/network.ts';

const here = () => readlinkSync('/proc/thread-self/ns/net');

let network: Network;

beforeAll(() => {
  network = new Network('hdns');
});

afterAll(() => {
  network.close();
});

describe('identity', () => {
  test('the inode is the one in /proc, the cookie is nobody else’s', () => {
    const pods = [network.addPod('a'), network.addPod('b')];
    const identities = pods.map((pod) => identifyNetns(pod.netnsFd));
    for (const [index, pod] of pods.entries()) {
      const inside = inNetns(pod.netnsFd, here);
      expect(inside).toBe(`net:[${identities[index]!.inode}]`);
    }
    expect(identities[0]!.cookie).not.toBe(identities[1]!.cookie);
    expect(identities[0]!.inode).not.toBe(identities[1]!.inode);
  });

  test('the node’s own namespace and things that are none are refused', () => {
    const own = openSync('/proc/self/ns/net', 'r');
    expect(() => identifyNetns(own)).toThrow('hostNetwork');
    closeSync(own);
    const file = openSync('/proc/self/stat', 'r');
    expect(() => identifyNetns(file)).toThrow('expected a network namespace');
    closeSync(file);
    expect(() => openNetns('/run/netns/no-such-sandbox')).toThrow(
      'open network namespace "/run/netns/no-such-sandbox": the sandbox is gone',
    );
  });
});

describe('inside', () => {
  test('is left again, also when the work fails', () => {
    const before = here();
    const netnsFd = createNetns();
    expect(here()).toBe(before);
    expect(inNetns(netnsFd, here)).not.toBe(before);
    expect(() =>
      inNetns(netnsFd, () => {
        throw new Error('work failed');
      }),
    ).toThrow('work failed');
    expect(here()).toBe(before);
    closeSync(netnsFd);
  });

  test('work that is not synchronous is a mistake', () => {
    const netnsFd = createNetns();
    expect(() => inNetns(netnsFd, () => Promise.resolve(1))).toThrow('is synchronous');
    closeSync(netnsFd);
  });
});

describe('listeners', () => {
  test('listen on loopback of the pod, one for each family and direction', () => {
    const pod = network.addPod('c');
    const { cookie } = identifyNetns(pod.netnsFd);
    const listeners = openListeners(pod.netnsFd);
    for (const [name, fd] of Object.entries(listeners)) {
      expect(isListening(fd)).toBe(true);
      expect(netnsCookie(fd)).toBe(cookie);
      expect(localAddress(fd)!.address).toBe(name.endsWith('6') ? '::1' : '127.0.0.1');
    }
    const copies = duplicateListeners(listeners);
    closeListeners(listeners);
    for (const fd of Object.values(listeners)) expect(isOpen(fd)).toBe(false);
    for (const fd of Object.values(copies)) expect(isListening(fd)).toBe(true);
    closeListeners(copies);
  });

  test('exist in a pod without IPv6', () => {
    const pod = network.addPod('d');
    network.setSysctl(pod, 'net/ipv6/conf/all/disable_ipv6', '1');
    const listeners = openListeners(pod.netnsFd);
    expect(localAddress(listeners.inbound6)!.address).toBe('::');
    for (const fd of Object.values(listeners)) expect(isListening(fd)).toBe(true);
    closeListeners(listeners);
  });

  test('that cannot be made leave none behind', () => {
    const file = openSync('/proc/self/stat', 'r');
    expect(() => openListeners(file)).toThrow(`open listeners in network namespace of descriptor "${file}"`);
    closeSync(file);
  });
});
