// The policy services: what clients do with traffic to a target (OutboundPolicies), and who may talk to a port of a
// workload (InboundServerPolicies). Answers are whole; a stream that is told of an answer is told of each one after it.

import net from 'node:net';
import type { InboundServerPoliciesDefinition, PortSpec, Server } from '#api/gen/inbound.ts';
import type { OutboundPoliciesDefinition, OutboundPolicy, TrafficSpec } from '#api/gen/outbound.ts';
import type { CallContext, Handlers } from '#lib/grpc/service.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import type { MessageStream } from '#lib/grpc/stream.ts';
import { parseAuthority, parseServiceName, parseWorkload, type Workload } from '../core/authority.ts';
import type { MeshConfig } from '../core/config.ts';
import type { InboundSnapshot, OutboundSnapshot, Refusal } from '../core/model.ts';
import type { InboundIndex, InboundTarget } from '../index/inbound.ts';
import type { OutboundIndex, OutboundTarget } from '../index/outbound.ts';
import type { Listener, Subscription } from '../index/topics.ts';
import { fromIpAddress, toGrpcError } from '../wire.ts';
import { toServer } from './translate-inbound.ts';
import { toOutboundPolicy } from './translate-outbound.ts';

export class OutboundPolicyService implements Handlers<typeof OutboundPoliciesDefinition> {
  readonly #index: OutboundIndex;
  readonly #config: MeshConfig;

  constructor(index: OutboundIndex, config: MeshConfig) {
    this.#index = index;
    this.#config = config;
  }

  readonly get = (request: TrafficSpec): OutboundPolicy =>
    answer<OutboundSnapshot, OutboundPolicy>(this.#index.get(this.#target(request)), this.#message);

  readonly watch = (request: TrafficSpec, stream: MessageStream<OutboundPolicy>, { signal }: CallContext): void => {
    const target = this.#target(request);
    follow<OutboundSnapshot, OutboundPolicy>(
      (listener) => this.#index.subscribe(target, listener),
      this.#message,
      stream,
      signal,
    );
  };

  readonly #message = (snapshot: Exclude<OutboundSnapshot, Refusal>): OutboundPolicy =>
    toOutboundPolicy(snapshot, this.#config.clusterDomain);

  #target({ sourceWorkload, target }: TrafficSpec): OutboundTarget {
    const { namespace: sourceNamespace } = workloadOf(sourceWorkload);
    if (target?.$case === 'addr') {
      const ip = fromIpAddress(target.value.ip);
      if (ip === null) throw invalid('the target has no IP address');
      return { destination: { kind: 'ip', ip }, port: portOf(target.value.port), sourceNamespace };
    }
    if (target?.$case !== 'authority') throw invalid('the request has no target: expected addr or authority');
    const authority = parseAuthority(target.value);
    const name = authority && !net.isIP(authority.host) ? this.#serviceName(authority.host) : null;
    if (!authority || !name) throw new GrpcError(Status.notFound, `"${target.value}" is no Service`);
    return { destination: { kind: 'service', ...name }, port: authority.port, sourceNamespace };
  }

  /** `name.ns.svc`, with or without the cluster's domain. */
  #serviceName(host: string): { namespace: string; name: string } | null {
    const { clusterDomain } = this.#config;
    const full = host.replace(/\.$/, '').endsWith('.svc') ? `${host.replace(/\.$/, '')}.${clusterDomain}` : host;
    const service = parseServiceName(full, clusterDomain);
    return service && service.hostname === null ? { namespace: service.namespace, name: service.name } : null;
  }
}

export class InboundPolicyService implements Handlers<typeof InboundServerPoliciesDefinition> {
  readonly #index: InboundIndex;

  constructor(index: InboundIndex) {
    this.#index = index;
  }

  readonly getPort = (request: PortSpec): Server =>
    answer<InboundSnapshot, Server>(this.#index.get(targetOf(request)), toServer);

  readonly watchPort = (request: PortSpec, stream: MessageStream<Server>, { signal }: CallContext): void => {
    const target = targetOf(request);
    follow<InboundSnapshot, Server>((listener) => this.#index.subscribe(target, listener), toServer, stream, signal);
  };
}

function targetOf({ workload, port }: PortSpec): InboundTarget {
  const { namespace, pod } = workloadOf(workload);
  if (pod === null) throw new GrpcError(Status.notFound, 'unknown server');
  return { namespace, pod, port: portOf(port) };
}

function workloadOf(text: string): Workload {
  const workload = parseWorkload(text);
  if (!workload) throw invalid(`"${text.slice(0, 256)}" is no workload: expected {"ns":"…","pod":"…"}`);
  return workload;
}

function portOf(port: number): number {
  if (port >= 1 && port <= 65_535) return port;
  throw invalid(`port ${port}: expected 1 to 65535`);
}

function invalid(message: string): GrpcError {
  return new GrpcError(Status.invalidArgument, message);
}

function answer<Snapshot extends { kind: string }, Message>(
  snapshot: Snapshot | Refusal,
  toMessage: (snapshot: Exclude<Snapshot, Refusal>) => Message,
): Message {
  if (isRefusal(snapshot)) throw toGrpcError(snapshot);
  return toMessage(snapshot as Exclude<Snapshot, Refusal>);
}

/** Sends each answer until the stream is over. A refusal ends it: the client asks again, and hears why. */
function follow<Snapshot extends { kind: string }, Message>(
  subscribe: (listener: Listener<Snapshot>) => Subscription<Snapshot>,
  toMessage: (snapshot: Exclude<Snapshot, Refusal>) => Message,
  stream: MessageStream<Message>,
  signal: AbortSignal,
): void {
  const send = (snapshot: Snapshot | Refusal) => {
    if (stream.isOver) return;
    if (isRefusal(snapshot)) stream.fail(toGrpcError(snapshot));
    else stream.send(toMessage(snapshot as Exclude<Snapshot, Refusal>));
  };
  const subscription = subscribe(send);
  signal.addEventListener('abort', () => subscription.close(), { once: true });
  if (signal.aborted) subscription.close();
  else send(subscription.current);
}

function isRefusal(snapshot: { kind: string }): snapshot is Refusal {
  return snapshot.kind === 'refused';
}
