// The preface between proxies on an ALPN `transport.l5d.io/v1` connection: which port and protocol the bytes are for.
// 23 bytes of ASCII, a big-endian u32 length, a protobuf message transport.l5d.io.Header.

export interface TransportHeader {
  port: number;
  /** The target's name, for gateways; empty otherwise. */
  name: string;
  /** Null: opaque. */
  sessionProtocol: 'http1' | 'http2' | null;
}

export type TransportHeaderResult =
  | { kind: 'incomplete' }
  /** The bytes are not a transport header; `reason` says why. */
  | { kind: 'invalid'; reason: string }
  /** `bytesUsed` bytes were the header; what follows belongs to the session. */
  | { kind: 'header'; header: TransportHeader; bytesUsed: number };

export const TRANSPORT_HEADER_ALPN = 'transport.l5d.io/v1';
/** A protobuf message longer than this is invalid. */
export const TRANSPORT_HEADER_BYTES_MAX = 1024;

export declare function encodeTransportHeader(header: TransportHeader): Uint8Array;
export declare function decodeTransportHeader(bytes: Uint8Array): TransportHeaderResult;
