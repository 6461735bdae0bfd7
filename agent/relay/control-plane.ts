// The agent's channels to the control plane: destination and policy streams as bytes, and the relay of Certify. A
// worker makes its key and its request; the agent adds its own ServiceAccount token and the pod's UID, by which the
// identity service knows that this node may ask for that pod. No private key comes by here.

import { readFile } from 'node:fs/promises';
import { DestinationDefinition } from '#api/gen/destination.ts';
import { CertifyRequest, CertifyResponse, IdentityDefinition } from '#api/gen/identity.ts';
import { InboundServerPoliciesDefinition } from '#api/gen/inbound.ts';
import { OutboundPoliciesDefinition } from '#api/gen/outbound.ts';
import { POD_UID_METADATA } from '#api/names.ts';
import { WatchKind } from '#api/worker-link.ts';
import { GrpcClient } from '#lib/grpc/client.ts';
import { methodPath } from '#lib/grpc/definition.ts';
import type { MeshTls } from '#lib/grpc/mesh-credentials.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import type { Upstream, UpstreamListener, UpstreamStream } from './upstream.ts';

export interface ControlPlaneOptions {
  destination: ServiceOptions;
  policy: ServiceOptions;
  identity: ServiceOptions;
  /** The agent's own token; read again for each request, since it is rotated in place. */
  tokenFile: string;
}

export interface ServiceOptions {
  /** `host:port`. */
  address: string;
  /** Null: plain text, for tests only. */
  tls: MeshTls | null;
}

const CERTIFY_TIMEOUT_MS = 10_000;
const TOKEN_BYTES_MAX = 64 * 1024;

export class ControlPlane implements Upstream {
  readonly #options: ControlPlaneOptions;
  readonly #destination: GrpcClient;
  readonly #policy: GrpcClient;
  readonly #identity: GrpcClient;
  readonly #routes: Record<WatchKind, { client: GrpcClient; path: string }>;

  constructor(options: ControlPlaneOptions) {
    this.#options = options;
    this.#destination = new GrpcClient(options.destination);
    this.#policy = new GrpcClient(options.policy);
    this.#identity = new GrpcClient(options.identity);
    this.#routes = {
      [WatchKind.destination]: {
        client: this.#destination,
        path: methodPath(DestinationDefinition, DestinationDefinition.methods.get),
      },
      [WatchKind.profile]: {
        client: this.#destination,
        path: methodPath(DestinationDefinition, DestinationDefinition.methods.getProfile),
      },
      [WatchKind.outboundPolicy]: {
        client: this.#policy,
        path: methodPath(OutboundPoliciesDefinition, OutboundPoliciesDefinition.methods.watch),
      },
      [WatchKind.inboundPolicy]: {
        client: this.#policy,
        path: methodPath(InboundServerPoliciesDefinition, InboundServerPoliciesDefinition.methods.watchPort),
      },
    };
  }

  open(kind: WatchKind, request: Uint8Array, listener: UpstreamListener): UpstreamStream {
    const { client, path } = this.#routes[kind];
    return client.openBytes(path, request, {
      message: (bytes) => listener.update(bytes),
      end: (code, message) => listener.end({ code, message }),
    });
  }

  /**
   * Asks the identity service for a certificate for the pod. `request` is the worker's CertifyRequest; the result is
   * the service's CertifyResponse, both protobuf. Throws GrpcError with the service's status.
   */
  async certify(request: Uint8Array, podUid: string, signal: AbortSignal): Promise<Uint8Array> {
    let message: CertifyRequest;
    try {
      message = CertifyRequest.decode(request);
    } catch (cause) {
      throw new GrpcError(Status.invalidArgument, 'read the request of the worker: expected protobuf', { cause });
    }
    const token = await this.#readToken();
    const response = await this.#identity.call(
      IdentityDefinition,
      IdentityDefinition.methods.certify,
      { ...message, token },
      { signal, timeoutMs: CERTIFY_TIMEOUT_MS, metadata: { [POD_UID_METADATA]: podUid } },
    );
    return CertifyResponse.encode(response).finish();
  }

  close(): void {
    this.#destination.close();
    this.#policy.close();
    this.#identity.close();
  }

  async #readToken(): Promise<Buffer> {
    const { tokenFile } = this.#options;
    let token: string;
    try {
      token = (await readFile(tokenFile, 'utf8')).trim();
    } catch (cause) {
      throw new GrpcError(Status.unavailable, `read the agent's token "${tokenFile}": expected a readable file`, {
        cause,
      });
    }
    if (token === '' || token.length > TOKEN_BYTES_MAX) {
      throw new GrpcError(Status.unavailable, `read the agent's token "${tokenFile}": expected a ServiceAccount token`);
    }
    return Buffer.from(token);
  }
}
