// A gRPC client whose channel verifies the mesh identity of the server against trust anchors that may change while it
// lives. Calls take bytes or messages; streams are pushed. The channel connects again by itself, with back-off.

import { type ChannelCredentials, Client, type ClientReadableStream, Metadata } from '@grpc/grpc-js';
import { describeError } from '../errors.ts';
import type { MessageCodec, MethodDefinition, RequestOf, ResponseOf, ServiceDefinition } from './definition.ts';
import { methodPath } from './definition.ts';
import { MeshCredentials, type MeshTls, plainTextCredentials } from './mesh-credentials.ts';
import { GrpcError, Status } from './status.ts';

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 3_000;
const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 5_000;

export interface GrpcClientOptions {
  /** `host:port`; names are resolved by DNS and again when connections fail. */
  address: string;
  /** Null for plain text: for tests and for loopback. */
  tls: MeshTls | null;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Milliseconds until the call is given up. */
  timeoutMs?: number;
  /** ASCII request headers. */
  metadata?: Record<string, string>;
}

export interface StreamListener<T> {
  message(message: T): void;
  /** Once, last. OK is an end too: the server may close a stream that it wants to be opened again. */
  end(status: Status, details: string): void;
}

/** An open stream. */
export interface OpenStream {
  /** Idempotent; the listener is not called afterwards. */
  close(): void;
}

export class GrpcClient implements Disposable {
  readonly #client: Client;

  constructor(options: GrpcClientOptions) {
    const credentials: ChannelCredentials = options.tls ? new MeshCredentials(options.tls) : plainTextCredentials();
    this.#client = new Client(options.address, credentials, {
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.initial_reconnect_backoff_ms': RECONNECT_MIN_MS,
      'grpc.max_reconnect_backoff_ms': RECONNECT_MAX_MS,
      // Each client owns its connections: closing one must not depend on others.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_retries': 0,
      'grpc.enable_channelz': 0,
    });
  }

  /** One request, one response. Throws {@link GrpcError}. */
  async call<Method extends MethodDefinition>(
    service: ServiceDefinition,
    method: Method,
    request: RequestOf<Method>,
    options: CallOptions = {},
  ): Promise<ResponseOf<Method>> {
    const { signal } = options;
    if (signal?.aborted) throw new GrpcError(Status.cancelled, `${method.name} was cancelled`);
    return await new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        methodPath(service, method),
        (message: RequestOf<Method>) => encode(method, message),
        (bytes) => decode(method, bytes),
        request,
        metadataOf(options),
        deadlineOf(options),
        (error, response) => {
          signal?.removeEventListener('abort', abort);
          if (error) reject(new GrpcError(error.code as Status, error.details, { cause: error }));
          else resolve(response as ResponseOf<Method>);
        },
      );
      const abort = () => call.cancel();
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Opens a stream of messages. The listener is never called from inside this call. */
  open<Method extends MethodDefinition>(
    service: ServiceDefinition,
    method: Method,
    request: RequestOf<Method>,
    listener: StreamListener<ResponseOf<Method>>,
    options: CallOptions = {},
  ): OpenStream {
    return this.openBytes(
      methodPath(service, method),
      encode(method, request),
      {
        message: (bytes) => listener.message(decode(method, bytes)),
        end: (status, details) => listener.end(status, details),
      },
      options,
    );
  }

  /**
   * Like `open` with messages left as bytes, for relays that pass them on unread. A listener that throws on a message
   * (bytes that are no protobuf) ends the stream with INTERNAL.
   */
  openBytes(
    path: string,
    request: Uint8Array,
    listener: StreamListener<Buffer>,
    options: CallOptions = {},
  ): OpenStream {
    const call: ClientReadableStream<Buffer> = this.#client.makeServerStreamRequest(
      path,
      (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      (bytes) => bytes,
      request,
      metadataOf(options),
      deadlineOf(options),
    );
    return follow(call, listener, options.signal);
  }

  /** Ends every call and connection. */
  close(): void {
    this.#client.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function follow(
  call: ClientReadableStream<Buffer>,
  listener: StreamListener<Buffer>,
  signal?: AbortSignal,
): OpenStream {
  let isOver = false;
  const over = (): boolean => {
    if (isOver) return false;
    isOver = true;
    signal?.removeEventListener('abort', close);
    return true;
  };
  const close = () => {
    if (over()) call.cancel();
  };
  call.on('data', (bytes: Buffer) => {
    if (isOver) return;
    try {
      listener.message(bytes);
    } catch (error) {
      if (!over()) return;
      call.cancel();
      listener.end(Status.internal, describeError(error));
    }
  });
  // The status event that follows says the same.
  call.on('error', () => {});
  call.on('status', ({ code, details }) => {
    if (over()) listener.end(code as Status, details);
  });
  if (signal?.aborted) close();
  else signal?.addEventListener('abort', close, { once: true });
  return { close };
}

function encode<Method extends MethodDefinition>(method: Method, message: RequestOf<Method>): Buffer {
  const bytes = (method.requestType as unknown as MessageCodec<RequestOf<Method>>).encode(message).finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decode<Method extends MethodDefinition>(method: Method, bytes: Uint8Array): ResponseOf<Method> {
  return (method.responseType as unknown as MessageCodec<ResponseOf<Method>>).decode(bytes);
}

function metadataOf(options: CallOptions): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
  return metadata;
}

function deadlineOf({ timeoutMs }: CallOptions): { deadline?: number } {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}
