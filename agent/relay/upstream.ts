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
