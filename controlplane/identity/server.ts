// The identity service put together: issuer, certifier, a gRPC server that serves with a certificate the service issues
// to itself, and the admin port.

import { IdentityDefinition } from '#api/gen/identity.ts';
import { type IdentityParts, identityName, POD_UID_METADATA } from '#api/names.ts';
import type { Clock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { GrpcServer, type ListenAddress } from '#lib/grpc/server.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import type { Log } from '#lib/log.ts';
import { AdminServer } from '../admin.ts';
import { Authorizer } from './authorize.ts';
import { Certifier } from './certify.ts';
import type { IdentityConfig } from './config.ts';
import { parseCertificateRequest } from './csr.ts';
import { Issuer } from './issuer.ts';
import { createIdentityMetrics } from './metrics.ts';
import type { PodFacts } from './pods.ts';
import { Refusal } from './refusal.ts';
import { type KeyedChain, ServingCertificate } from './serving-certificate.ts';
import type { TokenReviewer } from './tokens.ts';

/** Nodes whose rate is remembered: as many as the largest clusters have. */
const NODES_MAX = 10_000;
const CONCURRENCY_MAX = 256;
const SHUTDOWN_GRACE_MS = 2000;

export interface IdentityServerOptions {
  config: IdentityConfig;
  reviewer: TokenReviewer;
  findPod: (uid: string) => PodFacts | undefined;
  clock: Clock;
  log: Log;
}

export class IdentityServer {
  readonly #options: IdentityServerOptions;
  readonly #metrics = createIdentityMetrics();
  readonly #issuer: Issuer;
  readonly #certifier: Certifier;
  readonly #serving: ServingCertificate;
  readonly #admin: AdminServer;
  #grpc: GrpcServer | null = null;

  constructor(options: IdentityServerOptions) {
    this.#options = options;
    const { config, clock, log } = options;
    this.#issuer = new Issuer({
      paths: config.issuer,
      reloadIntervalMs: config.reloadIntervalMs,
      clock,
      log,
      onEvent: (event) => this.#metrics.issuerEvent(event),
    });
    this.#metrics.watchIssuer(this.#issuer, () => clock.wallMs());
    const { audience, controlPlaneNamespace, trustDomain, agent } = config;
    this.#certifier = new Certifier({
      issuer: this.#issuer,
      authorizer: new Authorizer({
        reviewer: options.reviewer,
        audience,
        findPod: options.findPod,
        controlPlaneNamespace,
        trustDomain,
        agent,
        nodeRate: { ...config.nodeRate, keysMax: NODES_MAX },
        clock,
      }),
      leafLifetimeMs: config.leafLifetimeMs,
      concurrencyMax: CONCURRENCY_MAX,
      clock,
      log,
      onOutcome: (outcome, way) => this.#metrics.outcome(outcome, way),
    });
    this.#serving = this.#createServing();
    this.#admin = new AdminServer({
      notReady: () => (this.#grpc ? null : 'no certificate yet'),
      metrics: () => this.#metrics.registry.metrics(),
      contentType: this.#metrics.registry.contentType,
    });
  }

  /**
   * Listens on the admin port at once and on the gRPC port when there is a certificate to serve with. Resolves with
   * the gRPC address. Rejects with `listen` when a port is taken.
   */
  async start(): Promise<{ grpc: ListenAddress; admin: ListenAddress }> {
    const { config } = this.#options;
    const admin = await this.#admin.listen(config.adminListen);
    const first = new Promise<KeyedChain>((resolve) => this.#serving.onChange(resolve));
    this.#issuer.onUpdate(() => void this.#serving.renew());
    await this.#issuer.start();
    const grpc = this.#createGrpc(await first);
    const address = await grpc.listen(config.listen);
    this.#grpc = grpc;
    this.#serving.onChange((chain) => grpc.setTls(chain));
    return { grpc: address, admin };
  }

  /** Takes no new calls and lets those under way end. */
  async close(): Promise<void> {
    this.#issuer.close();
    this.#serving.close();
    await this.#grpc?.close(SHUTDOWN_GRACE_MS);
    this.#admin.close();
  }

  #createServing(): ServingCertificate {
    const { config, clock, log } = this.#options;
    const parts: IdentityParts = {
      serviceAccount: config.serviceAccount,
      namespace: config.controlPlaneNamespace,
      controlPlaneNamespace: config.controlPlaneNamespace,
      trustDomain: config.trustDomain,
    };
    return new ServingCertificate({
      identity: identityName(parts),
      certify: async (request) => {
        const authority = this.#issuer.authority;
        if (!authority) throw new Refusal(Status.unavailable, 'no-issuer', 'certify: no issuer is loaded yet');
        const { publicKeyDer } = parseCertificateRequest(request);
        const leaf = authority.signLeaf(publicKeyDer, parts, config.leafLifetimeMs, clock.wallMs());
        return {
          leafCertificate: leaf.der,
          intermediateCertificates: [...authority.intermediates],
          validUntil: { seconds: BigInt(Math.floor(leaf.notAfterMs / 1000)), nanos: 0 },
        };
      },
      clock,
      log,
    });
  }

  #createGrpc(tls: KeyedChain): GrpcServer {
    const server = new GrpcServer({ log: this.#options.log, tls });
    server.add(IdentityDefinition, {
      certify: async (request, context) => {
        try {
          return await this.#certifier.certify(request, context.metadata(POD_UID_METADATA) ?? null);
        } catch (error) {
          const status = error instanceof Refusal ? error.status : Status.unknown;
          throw new GrpcError(status, describeError(error), { cause: error });
        }
      },
    });
    return server;
  }
}
