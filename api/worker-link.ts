// Agent and worker: frames over the worker's control socket. The worker inherits the *listening* socket
// (`<run dir>/workers/<pod uid>/control.sock`, mode 0600) and is the server, so that the next agent can connect to it;
// a new connection replaces the one before. Frame: big-endian u32 length of what follows, u8 type, big-endian u32
// stream, payload. Control payloads are JSON, API messages are linkerd2-proxy-api protobufs. Versions N and N-1
// understand each other: unknown frame types and unknown JSON fields are ignored.

/** 2: the worker knows `canary`. */
export const LINK_VERSION = 2;
export const LINK_FRAME_BYTES_MAX = 4 * 1024 * 1024;

export const LinkFrame = {
  // Worker to agent.
  /** JSON {@link LinkHello}; the first frame on every connection. */
  hello: 0x01,
  /** JSON {@link LinkState}: sent at every change of state. */
  state: 0x02,
  /** On a new stream: protobuf identity.CertifyRequest with an empty token. */
  certify: 0x03,
  /** On a new stream: one byte {@link WatchKind}, then the protobuf request. */
  watchOpen: 0x04,
  watchClose: 0x05,
  /** On the stream of a `metricsRequest`: a piece of Prometheus text; an empty one ends it. */
  metricsChunk: 0x06,
  /** On the stream of a `listenersRequest`: JSON string[] of {@link LISTENER_NAMES}, with as many descriptors (SCM_RIGHTS). */
  listeners: 0x07,
  /** On the stream of a `tapRequest`: protobuf tap.TapEvent. */
  tapEvent: 0x08,
  tapEnd: 0x09,
  /** On the stream of a `ping`. */
  pong: 0x0a,
  /** On the stream of a `canary`: its connection arrived at this worker. */
  canarySeen: 0x0b,

  // Agent to worker.
  /** JSON WorkerConfig (worker-config.ts); the first frame of the agent, and again when it changes. */
  config: 0x81,
  /** On the stream of a `certify`: protobuf identity.CertifyResponse. */
  certificate: 0x82,
  /** On the stream of a `certify`: JSON {@link LinkStatus}. */
  certifyFailed: 0x83,
  /** On the stream of a `watchOpen`: the protobuf response message of that watch. */
  update: 0x84,
  /** On the stream of a `watchOpen`: JSON {@link LinkStatus}; the watch is over. */
  watchEnd: 0x85,
  metricsRequest: 0x86,
  /** JSON {@link LinkDrain}. */
  drain: 0x87,
  listenersRequest: 0x88,
  /** On a new stream: protobuf tap.ObserveRequest. */
  tapRequest: 0x89,
  tapCancel: 0x8a,
  ping: 0x8b,
  /**
   * On the stream of a `watchOpen`: JSON {@link LinkStatus}. No stream of the agent feeds this watch any more: what was
   * sent before stands, and may be out of date until the next `update`.
   */
  stale: 0x8c,
  /**
   * On a new stream: {@link CANARY}.tokenBytes random bytes. The agent is about to make a connection in the pod that
   * sends them. Only to workers of link version 2 and later.
   */
  canary: 0x8d,
} as const;
export type LinkFrame = (typeof LinkFrame)[keyof typeof LinkFrame];

/**
 * Where canaries go: addresses that nobody has, so that a canary arrives if and only if the pod is redirected. A worker
 * never forwards a connection there: one without a token of the agent is reset.
 */
export const CANARY = {
  ipv4: '169.254.7.1',
  ipv6: 'fd68:6564:646c:65::1',
  port: 4140,
  tokenBytes: 16,
  /** From the frame until the connection has arrived and sent its token. */
  timeoutMs: 2_000,
} as const;

/** Streams opened by the worker have odd numbers, by the agent even ones; 0 belongs to the link itself. */
export const LINK_STREAM_NONE = 0;

export const WatchKind = {
  /** destination.GetDestination → destination.Update. */
  destination: 1,
  /** destination.GetDestination → destination.DestinationProfile. */
  profile: 2,
  /** outbound.TrafficSpec → outbound.OutboundPolicy. */
  outboundPolicy: 3,
  /** inbound.PortSpec → inbound.Server. */
  inboundPolicy: 4,
} as const;
export type WatchKind = (typeof WatchKind)[keyof typeof WatchKind];

export interface LinkHello {
  linkVersion: number;
  /** Identifies code and runtime of the worker; the agent rolls out when it differs from its own. */
  workerVersion: string;
  pid: number;
  podUid: string;
  startedMs: number;
}

export interface LinkState {
  /** starting: no configuration or certificate yet; ready: accepts; draining: takes no new connections. */
  state: 'starting' | 'ready' | 'draining';
  reason: string;
  connections: number;
  /** Unix seconds; 0 without a certificate. */
  certificateExpires: number;
}

export interface LinkStatus {
  /** gRPC status code of the upstream service; 14 when the agent cannot reach it. */
  code: number;
  message: string;
}

export interface LinkDrain {
  /** Milliseconds until the worker exits even with open connections. */
  graceMs: number;
  /** successor: another process serves the same listeners; shutdown: the pod is going. */
  reason: 'successor' | 'shutdown';
}

/** Inherited descriptors by position: the first listener is descriptor 3, the control socket comes behind them. */
export const LISTENER_NAMES = ['inbound4', 'inbound6', 'outbound4', 'outbound6'] as const;
export type ListenerName = (typeof LISTENER_NAMES)[number];
export const LISTENER_FIRST_FD = 3;
export const CONTROL_FD = LISTENER_FIRST_FD + LISTENER_NAMES.length;

/**
 * Environment of a worker: only what it must know before the first `config`. NODE_COMPILE_CACHE is Node's own. Log
 * lines go to standard error as JSON.
 */
export const WorkerEnvironment = {
  /** Required: LinkHello.podUid, and on every log line. */
  podUid: 'HEDDLE_POD_UID',
  /** Required: LinkHello.workerVersion. */
  workerVersion: 'HEDDLE_WORKER_VERSION',
  /** Until the configuration says another one; info when absent. */
  logLevel: 'HEDDLE_LOG_LEVEL',
} as const;

/** How a worker ends: 0 drained or terminated, 1 it could not start or broke; the supervisor starts the next one. */
export const WorkerExit = { drained: 0, failed: 1 } as const;
