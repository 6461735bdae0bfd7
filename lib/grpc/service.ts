// Handlers written against generated definitions, as an implementation that grpc-js serves. Handlers know neither
// grpc-js nor its calls: they take a message and a context, and return, stream or throw.

import type {
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  UntypedServiceImplementation,
  MethodDefinition as WireMethod,
} from '@grpc/grpc-js';
import { describeError } from '../errors.ts';
import type { Log } from '../log.ts';
import {
  type MessageCodec,
  type MethodDefinition,
  methodPath,
  type RequestOf,
  type ResponseOf,
  type ServiceDefinition,
} from './definition.ts';
import { GrpcError, Status } from './status.ts';
import { MessageStream, type StreamOptions } from './stream.ts';

export interface CallContext {
  /** Address of the client, for logs. */
  readonly peer: string;
  /** Aborts when the client is gone or the call is over. */
  readonly signal: AbortSignal;
  /** The first value of a request header in ASCII, or undefined. */
  metadata(name: string): string | undefined;
}

export type UnaryHandler<Request, Response> = (request: Request, context: CallContext) => Response | Promise<Response>;
/** The call goes on after the handler returned, until it ends the stream or the client leaves. */
export type StreamHandler<Request, Response> = (
  request: Request,
  stream: MessageStream<Response>,
  context: CallContext,
) => void | Promise<void>;

export type Handlers<Service extends ServiceDefinition> = {
  [Name in keyof Service['methods']]: Service['methods'][Name]['responseStream'] extends true
    ? StreamHandler<RequestOf<Service['methods'][Name]>, ResponseOf<Service['methods'][Name]>>
    : UnaryHandler<RequestOf<Service['methods'][Name]>, ResponseOf<Service['methods'][Name]>>;
};

export interface CallLabels {
  service: string;
  method: string;
  type: 'unary' | 'server_stream';
}

/** Told of each call, for metrics. */
export interface CallObserver {
  started(labels: CallLabels): void;
  received(labels: CallLabels): void;
  sent(labels: CallLabels): void;
  /** Once for each started call. */
  handled(labels: CallLabels, status: number): void;
}

/** The open streams of all connections of a server. */
export interface OpenStreams {
  readonly all: Set<MessageStream<unknown>>;
  readonly max: number;
}

export interface ServeOptions extends StreamOptions {
  log: Log;
  streams?: OpenStreams;
  observer?: CallObserver;
}

/** What grpc-js serves: wire definitions by handler name, and the functions behind them. */
export interface Implementation {
  definition: Record<string, WireMethod<unknown, unknown>>;
  functions: UntypedServiceImplementation;
}

/** Joins a generated service definition with its handlers. */
export function implement<Service extends ServiceDefinition>(
  service: Service,
  handlers: Handlers<Service>,
  options: ServeOptions,
): Implementation {
  const definition: Implementation['definition'] = {};
  const functions: UntypedServiceImplementation = {};
  for (const [key, method] of Object.entries(service.methods)) {
    definition[key] = wireMethod(service, method);
    const labels: CallLabels = {
      service: service.fullName,
      method: method.name,
      type: method.responseStream ? 'server_stream' : 'unary',
    };
    const handler = handlers[key as keyof Handlers<Service>];
    functions[key] = method.responseStream
      ? serveStream(handler as StreamHandler<unknown, unknown>, labels, options)
      : serveUnary(handler as UnaryHandler<unknown, unknown>, labels, options);
  }
  return { definition, functions };
}

function wireMethod(service: ServiceDefinition, method: MethodDefinition): WireMethod<unknown, unknown> {
  const request = method.requestType as unknown as MessageCodec<unknown>;
  const response = method.responseType as unknown as MessageCodec<unknown>;
  return {
    path: methodPath(service, method),
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (message) => asBuffer(request.encode(message).finish()),
    requestDeserialize: (bytes) => request.decode(bytes),
    responseSerialize: (message) => asBuffer(response.encode(message).finish()),
    responseDeserialize: (bytes) => response.decode(bytes),
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function serveUnary(
  handler: UnaryHandler<unknown, unknown>,
  labels: CallLabels,
  { log, observer }: ServeOptions,
): handleUnaryCall<unknown, unknown> {
  return (call, callback) => {
    observer?.started(labels);
    observer?.received(labels);
    const ended = new AbortController();
    call.on('cancelled', () => ended.abort());
    const context = contextOf(call, ended.signal);
    void (async () => {
      try {
        const response = await handler(call.request, context);
        observer?.sent(labels);
        observer?.handled(labels, Status.ok);
        callback(null, response);
      } catch (error) {
        const { status, message } = toGrpcError(error, labels, log);
        observer?.handled(labels, status);
        callback({ code: status, details: message });
      } finally {
        ended.abort();
      }
    })();
  };
}

function serveStream(
  handler: StreamHandler<unknown, unknown>,
  labels: CallLabels,
  options: ServeOptions,
): handleServerStreamingCall<unknown, unknown> {
  const { log, observer, streams } = options;
  return (call) => {
    observer?.started(labels);
    observer?.received(labels);
    const isAdmitted = streams === undefined || streams.all.size < streams.max;
    const ended = new AbortController();
    const stream = new MessageStream<unknown>(call, {
      ...options,
      onSent: () => observer?.sent(labels),
      onEnd: (status) => {
        streams?.all.delete(stream);
        observer?.handled(labels, status);
        ended.abort();
      },
    });
    streams?.all.add(stream);
    void (async () => {
      try {
        if (!isAdmitted) throw new GrpcError(Status.resourceExhausted, 'too many streams: try another server');
        await handler(call.request, stream, contextOf(call, ended.signal));
      } catch (error) {
        stream.fail(toGrpcError(error, labels, log));
      }
    })();
  };
}

function contextOf(call: { getPeer(): string; metadata: Metadata }, signal: AbortSignal): CallContext {
  return {
    peer: call.getPeer(),
    signal,
    metadata: (name) => call.metadata.get(name).find((value) => typeof value === 'string'),
  };
}

/** A peer learns the message of a GrpcError; of anything else only that it happened, and the log has the rest. */
function toGrpcError(error: unknown, labels: CallLabels, log: Log): GrpcError {
  if (error instanceof GrpcError) return error;
  log.error('call failed', { ...labels, error: describeError(error) });
  return new GrpcError(Status.internal, `${labels.method} failed`);
}
