// What takes HTTP/1.1 cases for comparison: a worker, nginx and haproxy, each in front of an origin of its own.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { FakeAgent } from '../../worker/support/agent.ts';
import { POD_ADDRESS, plainConfig } from '../../worker/support/config.ts';
import { permit, server as serverPolicy } from '../../worker/support/policy.ts';
import { cleanUp, inboundAddress, WorkerUnderTest } from '../../worker/support/process.ts';
import { PEER_NAMES, Peer, type PeerName } from './http1-peers.ts';
import { RecordingOrigin, type SeenRequest } from './recording-origin.ts';

export type SystemName = 'heddle' | PeerName;
export const SYSTEM_NAMES: readonly SystemName[] = ['heddle', ...PEER_NAMES];

/** How a system took the bytes of a case. */
export interface Outcome {
  /** Whole requests that reached the origin. */
  seen: SeenRequest[];
  /** Requests of which only a part did. */
  parts: number;
  /** Statuses of the answers. */
  statuses: number[];
  /** False: it kept the connection open past everything that was sent, and its end. */
  isClosed: boolean;
}

/** Longer than the timeouts of the proxies. */
const CASE_TIMEOUT_MS = 5_000;

/** One proxy with its origin. */
export class System {
  readonly #origin: RecordingOrigin;
  readonly #target: net.NetConnectOpts;

  constructor(origin: RecordingOrigin, target: net.NetConnectOpts) {
    this.#origin = origin;
    this.#target = target;
  }

  /**
   * Sends the bytes on a connection of their own, then, as soon as `answers` final responses came, its end, and waits
   * until everything came of it that will. An end before the answers could be taken for a client that gave up.
   */
  async take(bytes: Buffer, answers: number): Promise<Outcome> {
    const socket = net.connect(this.#target);
    let answer = '';
    const endWhenAnswered = (): void => {
      if (statusesOf(answer).length >= answers && !socket.writableEnded) socket.end();
    };
    socket.setEncoding('latin1').on('data', (text: string) => {
      answer += text;
      endWhenAnswered();
    });
    // A refusal may come as a reset, as bytes that nobody read are on their way.
    socket.on('error', () => {});
    const { promise, resolve } = Promise.withResolvers<boolean>();
    socket.once('close', () => resolve(true));
    const timer = setTimeout(() => resolve(false), CASE_TIMEOUT_MS);
    socket.write(bytes);
    endWhenAnswered();
    const isClosed = await promise;
    clearTimeout(timer);
    socket.destroy();
    // What the proxy sent on before it closed lies in the origin's sockets: one turn of the event loop reads it.
    for (let turn = 0; turn < 2; turn++) await new Promise((next) => setImmediate(next));
    return { ...this.#origin.take(), statuses: statusesOf(answer), isClosed };
  }
}

function statusesOf(answer: string): number[] {
  return [...answer.matchAll(/^HTTP\/1\.[01] ([2-5]\d\d)/gm)].map(([, status]) => Number(status));
}

/** All systems, running. */
export class Systems {
  readonly #directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-http1-'));
  readonly #origins: RecordingOrigin[] = [];
  readonly #peers: Peer[] = [];
  readonly #systems = new Map<SystemName, System>();

  static async start(): Promise<Systems> {
    const systems = new Systems();
    try {
      await systems.#startWorker();
      for (const name of PEER_NAMES) await systems.#startPeer(name);
    } catch (error) {
      await systems.stop();
      throw error;
    }
    return systems;
  }

  /** What each makes of the bytes, for which a worker is expected to give so many answers. */
  async take(bytes: Buffer, answers: number): Promise<Record<SystemName, Outcome>> {
    const outcomes = await Promise.all(SYSTEM_NAMES.map((name) => this.#systems.get(name)!.take(bytes, answers)));
    return Object.fromEntries(SYSTEM_NAMES.map((name, index) => [name, outcomes[index]])) as Record<
      SystemName,
      Outcome
    >;
  }

  async stop(): Promise<void> {
    for (const peer of this.#peers) await peer.stop();
    cleanUp();
    for (const origin of this.#origins) origin.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** The worker is told that the port speaks HTTP/1.1: detection would pass on as bytes what is none. */
  async #startWorker(): Promise<void> {
    const origin = await this.#startOrigin({ host: POD_ADDRESS, port: 0 });
    const { port } = origin.server.address() as net.AddressInfo;
    const { sockets } = new WorkerUnderTest();
    const agent = await FakeAgent.connect(sockets.controlPath);
    agent.setPolicy(port, serverPolicy({ protocol: 'http1', authorizations: [permit('0.0.0.0/0')] }));
    agent.configure(plainConfig(sockets, { ports: [port] }));
    await agent.whenState('ready');
    this.#systems.set('heddle', new System(origin, { host: inboundAddress(port), port: sockets.ports.inbound4 }));
  }

  async #startPeer(name: PeerName): Promise<void> {
    const originPath = path.join(this.#directory, `${name}-origin.sock`);
    const origin = await this.#startOrigin({ path: originPath });
    const peer = await Peer.start(name, this.#directory, originPath);
    this.#peers.push(peer);
    this.#systems.set(name, new System(origin, { path: peer.listenPath }));
  }

  async #startOrigin(on: net.ListenOptions): Promise<RecordingOrigin> {
    const origin = new RecordingOrigin();
    this.#origins.push(origin);
    origin.server.listen(on);
    await once(origin.server, 'listening');
    return origin;
  }
}
