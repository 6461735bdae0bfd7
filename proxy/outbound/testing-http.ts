// The two ends of one exchange for tests of layers: a client that writes down what it gets, and an upstream whose
// answers are given by hand.

import type { HeddleError } from '#lib/errors.ts';
import type {
  Exchange,
  Headers,
  HttpService,
  HttpVersion,
  RequestHead,
  RequestStream,
  ResponseHead,
  ResponseStream,
} from '../http.ts';
import { HeaderList } from '../wire/headers.ts';

export const EXCHANGE: Exchange = { clientAddress: '10.1.0.7', clientPort: 40_000, clientIdentity: null, startedMs: 0 };

export function headersOf(fields: Record<string, string>): Headers {
  const headers = new HeaderList();
  for (const [name, value] of Object.entries(fields)) headers.add(name, value);
  return headers;
}

export function responseHead(
  status: number,
  fields: Record<string, string> = {},
  version: HttpVersion = 'HTTP/1.1',
): ResponseHead {
  return { status, reason: '', version, headers: headersOf(fields), bodyBytes: 'unknown' };
}

/** Writes down every call, one word each. */
export class RecordedResponse implements ResponseStream {
  readonly events: string[] = [];
  error: HeddleError | null = null;

  informational(head: ResponseHead): void {
    this.events.push(`informational ${head.status}`);
  }

  head(head: ResponseHead): void {
    this.events.push(`head ${head.status}`);
  }

  data(bytes: Uint8Array): boolean {
    this.events.push(`data ${Buffer.from(bytes).toString('latin1')}`);
    return true;
  }

  end(trailers: Headers | null): void {
    this.events.push(trailers ? `end ${trailers.get('grpc-status')}` : 'end');
  }

  fail(error: HeddleError): void {
    this.error = error;
    this.events.push(`fail ${error.code}`);
  }

  resumeRequest(): void {
    this.events.push('resume');
  }
}

export interface UpstreamCall {
  head: RequestHead;
  response: ResponseStream;
  body: string;
  isEnded: boolean;
  resetBy: HeddleError | null;
}

/** Takes every request and waits for the test to answer. */
export class ManualUpstream implements HttpService {
  readonly calls: UpstreamCall[] = [];
  /** What `data` returns. */
  isFlowing = true;

  call(head: RequestHead, _exchange: Exchange, response: ResponseStream): RequestStream {
    const call: UpstreamCall = { head, response, body: '', isEnded: false, resetBy: null };
    this.calls.push(call);
    return {
      data: (bytes) => {
        call.body += Buffer.from(bytes).toString('latin1');
        return this.isFlowing;
      },
      end: () => {
        call.isEnded = true;
      },
      reset: (error) => {
        call.resetBy = error;
      },
      resumeResponse: () => {},
    };
  }
}
