// What is on the wire between pods: tcpdump in a pod's namespace, and its file read back (libpcap's format, Ethernet,
// IPv4 and IPv6, TCP). A capture ends with a datagram that it must have seen, so that silence is never lost packets.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { MeshLab } from './mesh-lab.ts';
import type { MeshPod } from './mesh-node.ts';

const LAST_WAIT_MS = 20_000;
const POLL_MS = 20;

/** One direction of a TCP connection; retransmissions are in it twice. */
export interface Flow {
  from: string;
  to: string;
  fromPort: number;
  toPort: number;
  bytes: Buffer;
}

export class Capture {
  readonly #lab: MeshLab;
  readonly #pod: MeshPod;
  readonly #number: number;
  readonly #file: string;

  /** Resolves when packets are seen. */
  static async start(lab: MeshLab, pod: MeshPod): Promise<Capture> {
    const file = path.join(lab.directory, `${randomBytes(6).toString('hex')}.pcap`);
    const argv = ['tcpdump', '-i', 'eth0', '-n', '-U', '--immediate-mode', '-s', '0', '-B', '16384', '-Z', 'root'];
    const number = await lab.programs.serve(pod.netns, [...argv, '-w', file, 'tcp or udp'], 'listening on');
    return new Capture(lab, pod, number, file);
  }

  private constructor(lab: MeshLab, pod: MeshPod, number: number, file: string) {
    this.#lab = lab;
    this.#pod = pod;
    this.#number = number;
    this.#file = file;
  }

  /** Ends the capture with a datagram from `other`; everything sent before is in the result. */
  async stop(other: MeshPod): Promise<Captured> {
    const last = `last-${randomBytes(8).toString('hex')}`;
    const sent = await this.#lab.programs.run(
      other.netns,
      ['bash', '-c', `printf %s "$(cat)" >/dev/udp/${this.#pod.ipv4}/9`],
      last,
    );
    if (sent.status !== 0) throw new Error(`send the last datagram: ${sent.stderr}`);
    const untilMs = performance.now() + LAST_WAIT_MS;
    while (!readFileSync(this.#file).includes(last)) {
      if (performance.now() > untilMs) throw new Error('capture: the last datagram was not seen');
      await delay(POLL_MS);
    }
    const said = await this.#lab.programs.stop(this.#number, 'SIGINT');
    return new Captured(readFileSync(this.#file), said);
  }
}

export class Captured {
  readonly flows: Flow[];
  readonly #raw: Buffer;

  constructor(raw: Buffer, said: string) {
    const dropped = /(\d+) packets dropped by kernel/.exec(said)?.[1] ?? '0';
    if (dropped !== '0') throw new Error(`capture: the kernel dropped ${dropped} packets`);
    this.#raw = raw;
    this.flows = flowsOf(raw);
  }

  /** Whether the text is anywhere, in one packet or across several of a flow. */
  holds(text: string): boolean {
    return this.#raw.includes(text) || this.flows.some(({ bytes }) => bytes.includes(text));
  }

  /** Bytes that TCP carried to or from this port. */
  bytesOfPort(port: number): number {
    return this.flows
      .filter(({ fromPort, toPort }) => fromPort === port || toPort === port)
      .reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Every TLS ClientHello that begins a flow. */
  clientHellos(): ClientHello[] {
    return this.flows.flatMap((flow) => parseClientHello(flow.bytes) ?? []);
  }
}

export interface ClientHello {
  supportedGroups: number[];
  keyShares: number[];
  supportedVersions: number[];
}

function flowsOf(raw: Buffer): Flow[] {
  if (raw.readUInt32LE(0) !== 0xa1b2c3d4 || raw.readUInt32LE(20) !== 1) {
    throw new Error('capture: expected a little-endian pcap file of Ethernet');
  }
  const flows = new Map<string, Flow & { parts: Buffer[] }>();
  for (let at = 24; at + 16 <= raw.length; ) {
    const length = raw.readUInt32LE(at + 8);
    const segment = tcpSegment(raw.subarray(at + 16, at + 16 + length));
    at += 16 + length;
    if (!segment || segment.bytes.length === 0) continue;
    const { from, to, fromPort, toPort, bytes } = segment;
    const key = `${from} ${fromPort} ${to} ${toPort}`;
    const flow = flows.get(key) ?? { ...segment, parts: [] };
    flows.set(key, flow);
    flow.parts.push(bytes);
  }
  return [...flows.values()].map(({ parts, ...flow }) => ({ ...flow, bytes: Buffer.concat(parts) }));
}

const ETHERNET_BYTES = 14;
const TCP = 6;

function tcpSegment(frame: Buffer): Flow | null {
  const type = frame.readUInt16BE(12);
  const packet = frame.subarray(ETHERNET_BYTES);
  let segment: Buffer;
  let from: string;
  let to: string;
  if (type === 0x0800 && packet[9] === TCP) {
    from = packet.subarray(12, 16).join('.');
    to = packet.subarray(16, 20).join('.');
    segment = packet.subarray((packet[0]! & 15) * 4, packet.readUInt16BE(2));
  } else if (type === 0x86dd && packet[6] === TCP) {
    from = packet.subarray(8, 24).toString('hex');
    to = packet.subarray(24, 40).toString('hex');
    segment = packet.subarray(40, 40 + packet.readUInt16BE(4));
  } else {
    return null;
  }
  const bytes = segment.subarray((segment[12]! >> 4) * 4);
  return { from, to, fromPort: segment.readUInt16BE(0), toPort: segment.readUInt16BE(2), bytes };
}

const EXTENSION = { supportedGroups: 10, supportedVersions: 43, keyShare: 51 };

/** RFC 8446 section 4.1.2; null when the flow begins otherwise. */
function parseClientHello(flow: Buffer): ClientHello | null {
  const isClientHello = flow.length > 43 && flow[0] === 22 && flow[1] === 3 && flow[5] === 1;
  if (!isClientHello) return null;
  const hello = flow.subarray(9, 5 + flow.readUInt16BE(3));
  let at = 34;
  at += 1 + hello[at]!;
  at += 2 + hello.readUInt16BE(at);
  at += 1 + hello[at]!;
  at += 2;
  const found: ClientHello = { supportedGroups: [], keyShares: [], supportedVersions: [] };
  while (at + 4 <= hello.length) {
    const type = hello.readUInt16BE(at);
    const body = hello.subarray(at + 4, at + 4 + hello.readUInt16BE(at + 2));
    at += 4 + body.length;
    if (type === EXTENSION.supportedGroups) found.supportedGroups = numbers(body.subarray(2));
    if (type === EXTENSION.supportedVersions) found.supportedVersions = numbers(body.subarray(1));
    if (type === EXTENSION.keyShare) found.keyShares = keyShares(body.subarray(2));
  }
  return found;
}

function numbers(list: Buffer): number[] {
  return Array.from({ length: list.length / 2 }, (_, index) => list.readUInt16BE(index * 2));
}

function keyShares(list: Buffer): number[] {
  const groups: number[] = [];
  for (let at = 0; at + 4 <= list.length; at += 4 + list.readUInt16BE(at + 2)) groups.push(list.readUInt16BE(at));
  return groups;
}
