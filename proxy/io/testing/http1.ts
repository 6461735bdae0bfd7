// HTTP/1.1 on both ends of a stream for tests: raw bytes on one, a service or a caller of one's own on the other.

import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import type {
  Exchange,
  Headers,
  HttpService,
  RequestHead,
  RequestStream,
  ResponseHead,
  ResponseStream,
} from '../../http.ts';
import { HeaderList } from '../../wire/headers.ts';
import { Recorder } from './recorder.ts';

export const EXCHANGE: Exchange = { clientAddress: '10.0.0.9', clientPort: 999, clientIdentity: null, startedMs: 0 };

/** A list of `name: value` lines. */
export function headerList(...lines: string[]): HeaderList {
  const headers = new HeaderList();
  for (const line of lines) headers.add(line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim());
  return headers;
}

export function requestHead(part: Partial<RequestHead> = {}): RequestHead {
  return {
    method: 'GET',
    scheme: 'http',
    authority: 'a',
    path: '/',
    version: 'HTTP/1.1',
    headers: headerList('host: a'),
    bodyBytes: null,
    upgrade: null,
    ...part,
  };
}

export function responseHead(part: Partial<ResponseHead> = {}): ResponseHead {
  const head: ResponseHead = {
    status: 200,
    reason: 'OK',
    version: 'HTTP/1.1',
    headers: new HeaderList(),
    bodyBytes: 0,
    ...part,
  };
  return head;
}

/** One call of the service: what it was given, and the means to answer. */
export class ReceivedRequest implements RequestStream {
  readonly head: RequestHead;
  readonly exchange: Exchange;
  readonly response: ResponseStream;
  body = '';
  isEnded = false;
  trailers: Headers | null = null;
  resetWith: HeddleError | null = null;
  resumes = 0;
  /** What `data` returns. */
  takesMore = true;

  constructor(head: RequestHead, exchange: Exchange, response: ResponseStream) {
    this.head = head;
    this.exchange = exchange;
    this.response = response;
  }

  data(bytes: Uint8Array): boolean {
    this.body += Buffer.from(bytes).toString('latin1');
    return this.takesMore;
  }

  end(trailers: Headers | null): void {
    if (this.isEnded || this.resetWith) throw new Error('end after the end');
    this.isEnded = true;
    this.trailers = trailers;
  }

  reset(error: HeddleError): void {
    if (this.resetWith) throw new Error('reset twice');
    this.resetWith = error;
  }

  resumeResponse(): void {
    this.resumes++;
  }

  /** A whole response with a body of known length. */
  reply(status: number, body = '', part: Partial<ResponseHead> = {}): void {
    this.response.head(responseHead({ status, bodyBytes: body.length, ...part }));
    if (body !== '') this.response.data(Buffer.from(body));
    this.response.end(null);
  }
}

/** Keeps every call; `answer` may reply in a microtask. */
export class RecordingService implements HttpService {
  readonly requests: ReceivedRequest[] = [];
  readonly #answer: ((request: ReceivedRequest) => void) | null;

  constructor(answer: ((request: ReceivedRequest) => void) | null = null) {
    this.#answer = answer;
  }

  get last(): ReceivedRequest {
    return this.requests.at(-1)!;
  }

  call(head: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const request = new ReceivedRequest(head, exchange, response);
    this.requests.push(request);
    if (this.#answer !== null) queueMicrotask(() => this.#answer!(request));
    return request;
  }
}

/** What a caller of a service got. */
export class ReceivedResponse implements ResponseStream {
  readonly informationals: number[] = [];
  heading: ResponseHead | null = null;
  body = '';
  bytes = 0;
  isEnded = false;
  trailers: Headers | null = null;
  failure: HeddleError | null = null;
  resumes = 0;
  takesMore = true;
  readonly #keepsBody: boolean;

  constructor(options: { keepsBody?: boolean } = {}) {
    this.#keepsBody = options.keepsBody ?? true;
  }

  get isOver(): boolean {
    return this.isEnded || this.failure !== null;
  }

  informational(head: ResponseHead): void {
    this.informationals.push(head.status);
  }

  head(head: ResponseHead): void {
    if (this.heading || this.isOver) throw new Error('head out of order');
    this.heading = head;
  }

  data(bytes: Uint8Array): boolean {
    if (!this.heading || this.isOver) throw new Error('data out of order');
    this.bytes += bytes.length;
    if (this.#keepsBody) this.body += Buffer.from(bytes).toString('latin1');
    return this.takesMore;
  }

  end(trailers: Headers | null): void {
    if (!this.heading || this.isOver) throw new Error('end out of order');
    this.isEnded = true;
    this.trailers = trailers;
  }

  fail(error: HeddleError): void {
    if (this.isOver) throw new Error('fail after the end');
    this.failure = error;
  }

  resumeRequest(): void {
    this.resumes++;
  }
}

/** The far end of a stream in memory, written and read as text. */
export class RawPeer extends Recorder {
  constructor(stream: Duplex) {
    super(stream);
    stream.resume();
  }

  get text(): string {
    return this.received.toString('latin1');
  }

  send(text: string): boolean {
    return this.stream.write(Buffer.from(text, 'latin1'));
  }
}

/** A raw peer, and the end to hand to the code under test. */
export function rawPair(options?: Parameters<typeof memoryPair>[0]): [RawPeer, Duplex] {
  const [near, far] = memoryPair(options);
  return [new RawPeer(near), far];
}
