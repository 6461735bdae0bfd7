// Pods' networks for tests: namespaces with an eth0 each, joined by a bridge in a namespace of their own, so that the
// machine's own network is never touched and any number of tests can run beside each other. Names carry a label and the
// process id; everything is removed at close, and at the latest when the process exits.

import { execFileSync } from 'node:child_process';
import { closeSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { inNetns, openNetns } from '#agent/netns.ts';

/** A namespace: a pod, or the node that joins them. */
export interface Place {
  name: string;
  /** Path of the namespace file. */
  netnsPath: string;
  /** An open descriptor of it; closed with the network. */
  netnsFd: number;
  ipv4: string;
  ipv6: string;
}

const open = new Set<Network>();
process.once('exit', () => {
  for (const network of open) network.close();
});

/**
 * One bridge with pods on it. Addresses are 10.77.0.N and fd77::N; the node is N = 1 and the default route of the pods.
 * Two networks use the same addresses without meeting.
 */
export class Network {
  readonly node: Place;
  readonly #prefix: string;
  readonly #places: Place[] = [];
  #hosts = 1;

  /** `label`: a few letters of your own. Interface names are short, so keep it under 8. */
  constructor(label: string) {
    this.#prefix = `${label}-${process.pid}`;
    open.add(this);
    this.node = this.#addPlace('node');
    ip(this.node.name, [
      'link add br0 type bridge',
      'link set br0 up',
      `addr add ${this.node.ipv4}/24 dev br0`,
      `addr add ${this.node.ipv6}/64 dev br0 nodad`,
    ]);
  }

  /** A pod with eth0 up, both addresses and routes. `addresses`: those of a pod that was removed. */
  addPod(name: string, addresses: Partial<Pick<Place, 'ipv4' | 'ipv6'>> = {}): Place {
    const pod = Object.assign(this.#addPlace(name), addresses);
    const peer = `v${this.#hosts - 1}`;
    // No second in which the link-local address may not be used yet.
    this.setSysctl(pod, 'net/ipv6/conf/default/accept_dad', '0');
    ip(this.node.name, [
      `link add ${peer} type veth peer name eth0 netns ${pod.name}`,
      `link set ${peer} master br0 up`,
    ]);
    ip(pod.name, [
      `addr add ${pod.ipv4}/24 dev eth0`,
      `addr add ${pod.ipv6}/64 dev eth0 nodad`,
      'link set eth0 up',
      `route add default via ${this.node.ipv4}`,
      `route add ::/0 via ${this.node.ipv6}`,
    ]);
    return pod;
  }

  /** Removes one pod's namespace, as a runtime does at the end of a sandbox. */
  removePod(pod: Place): void {
    this.#places.splice(this.#places.indexOf(pod), 1);
    remove(pod);
  }

  /** Writes a file below /proc/sys as seen in the pod. */
  setSysctl(place: Place, name: string, value: string): void {
    inNetns(place.netnsFd, () => writeFileSync(path.join('/proc/sys', name), value));
  }

  close(): void {
    if (!open.delete(this)) return;
    for (const place of this.#places.splice(0).reverse()) remove(place);
  }

  #addPlace(label: string): Place {
    const name = `${this.#prefix}-${label}`;
    const host = this.#hosts++;
    execFileSync('ip', ['netns', 'add', name]);
    const netnsPath = `/run/netns/${name}`;
    const place = { name, netnsPath, netnsFd: openNetns(netnsPath), ipv4: `10.77.0.${host}`, ipv6: `fd77::${host}` };
    this.#places.push(place);
    ip(name, ['link set lo up']);
    return place;
  }
}

/** Runs `ip` commands in a namespace, all or an error. */
export function ip(netnsName: string, commands: readonly string[]): void {
  execFileSync('ip', ['-n', netnsName, '-batch', '-'], {
    input: `${commands.join('\n')}\n`,
    stdio: ['pipe', 'ignore', 'pipe'],
  });
}

function remove(place: Place): void {
  closeSync(place.netnsFd);
  execFileSync('ip', ['netns', 'delete', place.name]);
}
