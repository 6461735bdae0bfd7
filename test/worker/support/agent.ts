// An agent for tests of the worker, written from api/worker-link.ts: it answers certificate requests with an authority
// of its own, and watches with what the test puts in.

import net from 'node:net';
import { CertifyRequest, CertifyResponse } from '#api/gen/identity.ts';
import { PortSpec, type Server, Server as ServerMessage } from '#api/gen/inbound.ts';
import { encodeLinkFrame, encodeLinkJson, LinkDecoder, parseLinkJson } from '#api/link-codec.ts';
import type { WorkerConfig } from '#api/worker-config.ts';
import { type LinkDrain, LinkFrame, type LinkHello, type LinkState, WatchKind } from '#api/worker-link.ts';
import { CertificateAuthority } from '#controlplane/identity/ca.ts';
import { parseCertificateRequest } from '#controlplane/identity/csr.ts';
import { makeAuthority, type TestAuthority } from '#controlplane/identity/testing.ts';
import { onCleanUp, until } from './process.ts';

export const TRUST_DOMAIN = 'cluster.local';
const DAY_MS = 24 * 3_600_000;

export interface OpenWatch {
  stream: number;
  kind: number;
  request: Buffer;
}

/** `web` of namespace `shop` and the like: what an identity name is made of. */
export function partsOf(name: string) {
  const [serviceAccount = '', namespace = '', , , controlPlaneNamespace = '', ...domain] = name.split('.');
  return { serviceAccount, namespace, controlPlaneNamespace, trustDomain: domain.join('.') };
}

/** Signs requests as the identity service would. */
export class Issuer {
  authority: TestAuthority = makeAuthority('one', {}, Date.now());
  lifetimeMs = DAY_MS;
  /** Answers nothing while set. */
  isSilent = false;
  requests: string[] = [];

  get anchorsPem(): string {
    return this.authority.files.anchorsPem;
  }

  /** The protobuf answer to a protobuf request. */
  sign(request: Uint8Array): Uint8Array {
    const { identity, certificateSigningRequest } = CertifyRequest.decode(request);
    this.requests.push(identity);
    const nowMs = Date.now();
    const ca = new CertificateAuthority(this.authority.files, nowMs);
    const { publicKeyDer, names } = parseCertificateRequest(certificateSigningRequest);
    if (names.dns.length !== 1 || names.dns[0] !== identity) throw new Error(`request for ${names.dns} as ${identity}`);
    const leaf = ca.signLeaf(publicKeyDer, partsOf(identity), this.lifetimeMs, nowMs);
    return CertifyResponse.encode({
      leafCertificate: leaf.der,
      intermediateCertificates: [...ca.intermediates],
      validUntil: { seconds: BigInt(Math.floor(leaf.notAfterMs / 1000)), nanos: 0 },
    }).finish();
  }
}

export class FakeAgent {
  readonly states: LinkState[] = [];
  readonly watches = new Map<number, OpenWatch>();
  /** Inbound policies by port, sent to watches as soon as they are opened. */
  readonly policies = new Map<number, Server>();
  /** Answers watches other than those of inbound policies. */
  onWatch: (watch: OpenWatch) => void = () => {};
  hello: LinkHello | null = null;
  isClosed = false;
  readonly #socket: net.Socket;
  readonly #issuer: Issuer;
  readonly #decoder = new LinkDecoder();
  readonly #pongs = new Set<number>();
  readonly #scrapes = new Map<number, { text: string; isDone: boolean }>();
  #nextStream = 2;
  /** Sees every frame before it is handled. */
  onFrame: (type: number, stream: number, payload: Buffer) => void = () => {};

  private constructor(socket: net.Socket, issuer: Issuer) {
    this.#socket = socket;
    this.#issuer = issuer;
    socket.on('data', (chunk) => this.#decoder.push(chunk as Buffer, (...frame) => this.#take(...frame)));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
    onCleanUp(() => socket.destroy());
  }

  /** Connects as soon as the worker listens, and waits for its hello. */
  static async connect(controlPath: string, issuer: Issuer = new Issuer()): Promise<FakeAgent> {
    const socket = await until('the control socket answers', () => tryConnect(controlPath));
    const agent = new FakeAgent(socket, issuer);
    await until('hello', () => agent.hello);
    return agent;
  }

  get state(): LinkState | undefined {
    return this.states.at(-1);
  }

  configure(config: WorkerConfig): void {
    this.send(encodeLinkJson(LinkFrame.config, 0, config));
  }

  drain(drain: LinkDrain): void {
    this.send(encodeLinkJson(LinkFrame.drain, 0, drain));
  }

  send(frame: Buffer): void {
    this.#socket.write(frame);
  }

  async whenState(state: LinkState['state']): Promise<LinkState> {
    return until(`state ${state}`, () => this.states.find((seen) => seen.state === state));
  }

  /** Answers the watches of a port, those that are open and those to come. */
  setPolicy(port: number, policy: Server): void {
    this.policies.set(port, policy);
    for (const watch of this.watches.values()) {
      if (watch.kind === WatchKind.inboundPolicy && PortSpec.decode(watch.request).port === port) this.#answer(watch);
    }
  }

  endWatch(stream: number, code: number, message: string): void {
    this.send(encodeLinkJson(LinkFrame.watchEnd, stream, { code, message }));
  }

  update(stream: number, payload: Uint8Array): void {
    this.send(encodeLinkFrame(LinkFrame.update, stream, payload));
  }

  async ping(): Promise<void> {
    const stream = this.#newStream();
    this.send(encodeLinkFrame(LinkFrame.ping, stream));
    await until('pong', () => this.#pongs.delete(stream));
  }

  async scrape(): Promise<string> {
    const stream = this.#newStream();
    const scrape = { text: '', isDone: false };
    this.#scrapes.set(stream, scrape);
    this.send(encodeLinkFrame(LinkFrame.metricsRequest, stream));
    await until('metrics', () => scrape.isDone);
    return scrape.text;
  }

  /** The value of the series whose line has all of these pieces; null where there is none. */
  async metric(...pieces: string[]): Promise<number | null> {
    const line = (await this.scrape())
      .split('\n')
      .find((text) => pieces.every((piece) => text.includes(piece)) && !text.startsWith('#'));
    return line === undefined ? null : Number(line.split(' ').at(-1));
  }

  close(): void {
    this.#socket.destroy();
  }

  #newStream(): number {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    return stream;
  }

  #take(type: number, stream: number, payload: Buffer): void {
    this.onFrame(type, stream, payload);
    switch (type) {
      case LinkFrame.hello:
        this.hello = parseLinkJson(payload) as unknown as LinkHello;
        break;
      case LinkFrame.state:
        this.states.push(parseLinkJson(payload) as unknown as LinkState);
        break;
      case LinkFrame.certify:
        if (!this.#issuer.isSilent)
          this.send(encodeLinkFrame(LinkFrame.certificate, stream, this.#issuer.sign(payload)));
        break;
      case LinkFrame.watchOpen: {
        const watch = { stream, kind: payload[0]!, request: Buffer.from(payload.subarray(1)) };
        this.watches.set(stream, watch);
        this.#answer(watch);
        break;
      }
      case LinkFrame.watchClose:
        this.watches.delete(stream);
        break;
      case LinkFrame.pong:
        this.#pongs.add(stream);
        break;
      case LinkFrame.metricsChunk: {
        const scrape = this.#scrapes.get(stream)!;
        if (payload.length === 0) scrape.isDone = true;
        else scrape.text += payload.toString();
        break;
      }
    }
  }

  #answer(watch: OpenWatch): void {
    if (watch.kind !== WatchKind.inboundPolicy) {
      this.onWatch(watch);
      return;
    }
    const policy = this.policies.get(PortSpec.decode(watch.request).port);
    if (policy) this.update(watch.stream, ServerMessage.encode(policy).finish());
  }
}

function tryConnect(controlPath: string): Promise<net.Socket | null> {
  return new Promise((resolve) => {
    const socket = net.connect(controlPath);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(null));
  });
}
