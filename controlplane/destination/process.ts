// The destination and policy services put together: resources into indexes, indexes onto two gRPC ports, one
// certificate for both, and the admin port.

import { DestinationDefinition } from '#api/gen/destination.ts';
import { InboundServerPoliciesDefinition } from '#api/gen/inbound.ts';
import { OutboundPoliciesDefinition } from '#api/gen/outbound.ts';
import type { ResourceSource } from '#kube/source.ts';
import type { Clock } from '#lib/clock.ts';
import { GrpcServer, type ListenAddress } from '#lib/grpc/server.ts';
import type { KeyMaterial } from '#lib/grpc/tls.ts';
import type { Log } from '#lib/log.ts';
import { AdminServer } from '../admin.ts';
import { Cluster, WATCHED_KINDS } from '../index/cluster.ts';
import { EndpointIndex } from '../index/endpoints.ts';
import { InboundIndex } from '../index/inbound.ts';
import { OutboundIndex } from '../index/outbound.ts';
import { PodEndpoints } from '../index/pod-endpoints.ts';
import { ProfileIndex } from '../index/profiles.ts';
import { InboundPolicyService, OutboundPolicyService } from '../policy/server.ts';
import type { DestinationConfig } from './config.ts';
import { Feed } from './feed.ts';
import { createDestinationMetrics } from './metrics.ts';
import { DestinationService } from './server.ts';
import { type ServingSource, watchServingCertificate } from './serving.ts';

const SHUTDOWN_GRACE_MS = 2_000;

export interface DestinationProcessOptions {
  config: DestinationConfig;
  source: ResourceSource;
  clock: Clock;
  log: Log;
}

export interface BoundAddresses {
  destination: ListenAddress;
  policy: ListenAddress;
  admin: ListenAddress;
}

export class DestinationProcess {
  readonly #options: DestinationProcessOptions;
  readonly #metrics = createDestinationMetrics();
  readonly #cluster = new Cluster();
  readonly #admin: AdminServer;
  readonly #stop = new AbortController();
  #servers: GrpcServer[] = [];
  #serving: ServingSource | null = null;
  #notReady: string | null = 'resources are not read yet';

  constructor(options: DestinationProcessOptions) {
    this.#options = options;
    const { source } = options;
    this.#metrics.watchProblems(
      (severity) => source.problems().filter((problem) => problem.severity === severity).length,
    );
    this.#admin = new AdminServer({
      notReady: () => this.#notReady,
      metrics: () => this.#metrics.registry.metrics(),
      contentType: this.#metrics.registry.contentType,
    });
  }

  /**
   * Listens on the admin port at once, on the others when the resources are known and there is a certificate: an
   * answer made of half of the cluster would be wrong. Rejects with `listen` when a port is taken.
   */
  async start(): Promise<BoundAddresses> {
    const { config, source } = this.#options;
    const admin = await this.#admin.listen(config.adminListen);
    await source.start(WATCHED_KINDS, new Feed(this.#cluster), this.#stop.signal);
    this.#cluster.flush();
    this.#notReady = 'no certificate yet';
    const [destination, policy] = await this.#serve(await this.#firstCertificate());
    this.#notReady = null;
    return { destination, policy, admin };
  }

  /** Takes no new streams, says goodbye on the open ones, and cuts them after a moment. */
  async close(): Promise<void> {
    this.#notReady = 'stopping';
    this.#stop.abort();
    this.#serving?.close();
    await Promise.all(this.#servers.map((server) => server.close(SHUTDOWN_GRACE_MS)));
    this.#admin.close();
  }

  #firstCertificate(): Promise<KeyMaterial> {
    const { config, clock, log } = this.#options;
    return new Promise((resolve) => {
      this.#serving = watchServingCertificate(config, clock, log, (material) => {
        resolve(material);
        for (const server of this.#servers) server.setTls(material);
      });
    });
  }

  async #serve(tls: KeyMaterial): Promise<[ListenAddress, ListenAddress]> {
    const { config, log } = this.#options;
    const { mesh } = config;
    const pods = new PodEndpoints(this.#cluster, mesh);
    const destination = new GrpcServer({ log, tls, observer: this.#metrics.observer });
    const policy = new GrpcServer({ log, tls, observer: this.#metrics.observer });
    this.#servers = [destination, policy];
    const endpoints = new EndpointIndex(this.#cluster, mesh, pods);
    const profiles = new ProfileIndex(this.#cluster, mesh, pods);
    const service = new DestinationService({ config: mesh, endpoints, profiles, metrics: this.#metrics, log });
    destination.add(DestinationDefinition, service);
    const outbound = new OutboundIndex(this.#cluster, mesh);
    policy.add(OutboundPoliciesDefinition, new OutboundPolicyService(outbound, mesh));
    policy.add(InboundServerPoliciesDefinition, new InboundPolicyService(new InboundIndex(this.#cluster, mesh, pods)));
    return await Promise.all([destination.listen(config.destinationListen), policy.listen(config.policyListen)]);
  }
}
