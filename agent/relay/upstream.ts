// Where the relay's streams come from: the control plane over gRPC, or a fake in tests.

import type { LinkStatus, WatchKind } from '#api/worker-link.ts';

export interface UpstreamListener {
  /** One response message in protobuf; the listener may keep it. */
  update(payload: Uint8Array): void;
  /** The stream is over; nothing follows. */
  end(status: LinkStatus): void;
}

export interface UpstreamStream {
  /** Idempotent; the listener is not called afterwards. */
  close(): void;
}

export interface Upstream {
  /** Opens a stream. The listener is never called from inside `open`. */
  open(kind: WatchKind, request: Uint8Array, listener: UpstreamListener): UpstreamStream;
}

/** gRPC status codes that the relay acts upon (grpc.io "Status codes"). */
export const GrpcStatus = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  notFound: 5,
  resourceExhausted: 8,
  failedPrecondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
} as const;
