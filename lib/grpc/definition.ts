// The generic service definitions that ts-proto generates, typed: what a handler takes and returns, and the method
// paths that go on the wire (`/<package>.<Service>/<Method>`, gRPC over HTTP/2 "Requests").

/** Reads and writes one message type. */
export interface MessageCodec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** A codec whose message type is not known: a generated one of any type can stand here. */
export interface AnyCodec {
  encode(message: never): { finish(): Uint8Array };
  decode(bytes: Uint8Array): unknown;
}

/** The common shape of generated methods. Unary and server-streaming ones are all that the proxy API has. */
export interface MethodDefinition {
  readonly name: string;
  readonly requestType: AnyCodec;
  readonly requestStream: boolean;
  readonly responseType: AnyCodec;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

export type MessageOf<Codec> = Codec extends { decode(bytes: Uint8Array): infer T } ? T : never;
export type RequestOf<Method extends MethodDefinition> = MessageOf<Method['requestType']>;
export type ResponseOf<Method extends MethodDefinition> = MessageOf<Method['responseType']>;

/** The path of a method, with its leading slash. */
export function methodPath(service: ServiceDefinition, method: MethodDefinition): string {
  return `/${service.fullName}/${method.name}`;
}
