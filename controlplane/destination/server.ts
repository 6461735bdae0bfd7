// The destination service: endpoints as changes against what a stream was sent before, profiles whole. What is asked
// wrongly is refused for good, what is not there (yet) may be asked for again (linkerd2-proxy-api, section Destination).

import net from 'node:net';
import type { DestinationDefinition, DestinationProfile, GetDestination, Update } from '#api/gen/destination.ts';
import type { CallContext, Handlers } from '#lib/grpc/service.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import type { MessageStream } from '#lib/grpc/stream.ts';
import type { Log } from '#lib/log.ts';
import { type Authority, parseAuthority, parseContextToken, parseServiceName } from '../core/authority.ts';
import type { MeshConfig } from '../core/config.ts';
import type { EndpointSnapshot, ProfileSnapshot } from '../core/model.ts';
import type { EndpointIndex } from '../index/endpoints.ts';
import type { ProfileIndex } from '../index/profiles.ts';
import type { Subscription } from '../index/topics.ts';
import { toGrpcError } from '../wire.ts';
import type { DestinationMetrics } from './metrics.ts';
import { toProfile, updatesBetween } from './translate.ts';

export interface DestinationOptions {
  config: MeshConfig;
  endpoints: EndpointIndex;
  profiles: ProfileIndex;
  metrics: DestinationMetrics;
  log: Log;
}

export class DestinationService implements Handlers<typeof DestinationDefinition> {
  readonly #options: DestinationOptions;

  constructor(options: DestinationOptions) {
    this.#options = options;
  }

  readonly get = (request: GetDestination, stream: MessageStream<Update>, { signal }: CallContext): void => {
    const { endpoints, metrics } = this.#options;
    const { host, port } = this.#authority(request);
    if (net.isIP(host)) throw invalid(`"${request.path}" is an address: expected the name of a Service`);
    const service = this.#serviceName(host);
    const refusal = endpoints.refusalOf(service);
    if (refusal) throw toGrpcError(refusal);

    const { nodeName } = this.#client(request);
    const labels = {
      namespace: service.namespace,
      service: service.name,
      port: String(port),
      hostname: service.hostname ?? '',
    };
    let sent: EndpointSnapshot | null = null;
    const send = (snapshot: EndpointSnapshot) => {
      for (const update of updatesBetween(sent, snapshot)) {
        metrics.endpointUpdate(labels);
        if (stream.isOver || stream.send(update)) continue;
        metrics.endpointOverflow(service.name);
        return;
      }
      sent = snapshot;
      watch.observe(snapshot.endpoints.length);
    };
    const watch = metrics.endpointWatch(labels);
    const subscription = endpoints.subscribe({ ...service, port }, { nodeName }, send);
    closeWith(signal, subscription, watch);
    send(subscription.current);
  };

  readonly getProfile = (
    request: GetDestination,
    stream: MessageStream<DestinationProfile>,
    { signal }: CallContext,
  ): void => {
    const { profiles, metrics, config } = this.#options;
    const { host, port } = this.#authority(request);
    const { namespace, nodeName } = this.#client(request);
    const watch = metrics.profileWatch();
    const send = (snapshot: ProfileSnapshot) => {
      if (stream.isOver) return;
      if (snapshot.kind === 'refused') return stream.fail(toGrpcError(snapshot));
      metrics.profileUpdate();
      if (!stream.send(toProfile(snapshot, config.clusterDomain))) metrics.profileOverflow(snapshot.kind, host, port);
    };
    const subscription = profiles.subscribe(
      {
        host: net.isIP(host) ? { kind: 'ip', ip: host } : { kind: 'service', name: this.#serviceName(host) },
        port,
        clientNamespace: namespace,
        clientNode: nodeName,
      },
      send,
    );
    closeWith(signal, subscription, watch);
    send(subscription.current);
  };

  #authority({ path }: GetDestination): Authority {
    const authority = parseAuthority(path);
    if (!authority) throw invalid(`"${path}" is no authority: expected host or host:port with a port from 1 to 65535`);
    return authority;
  }

  #serviceName(host: string) {
    const { clusterDomain } = this.#options.config;
    const service = parseServiceName(host, clusterDomain);
    if (!service) throw invalid(`"${host}" is no Service: expected <service>.<namespace>.svc.${clusterDomain}`);
    return service;
  }

  #client({ contextToken }: GetDestination) {
    const { isOdd, ...client } = parseContextToken(contextToken);
    if (isOdd) this.#options.log.warn('odd context token', { token: contextToken.slice(0, 256) });
    return client;
  }
}

function invalid(message: string): GrpcError {
  return new GrpcError(Status.invalidArgument, message);
}

/** Ends a subscription with its stream, which may be over already. */
function closeWith(signal: AbortSignal, ...resources: (Subscription<unknown> | { close(): void })[]): void {
  const close = () => {
    for (const resource of resources) resource.close();
  };
  if (signal.aborted) close();
  else signal.addEventListener('abort', close, { once: true });
}
