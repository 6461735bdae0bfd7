import { describe, expect, test } from 'vitest';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, HttpService, RequestHead, ResponseHead, ResponseStream } from '../http.ts';
import { upgradeToHttp2 } from '../outbound/orig-proto.ts';
import { HeaderList } from '../wire/headers.ts';
import { downgradeFromHttp2 } from './orig-proto.ts';

const EXCHANGE: Exchange = { clientAddress: '10.0.0.1', clientPort: 1, clientIdentity: null, startedMs: 0 };

function request(version: RequestHead['version'], fields: [string, string][] = []): RequestHead {
  const headers = new HeaderList();
  for (const [name, value] of fields) headers.add(name, value);
  return { method: 'GET', scheme: 'http', authority: 'a', path: '/', version, headers, bodyBytes: null, upgrade: null };
}

/** Answers with a head of the version it was asked in, and remembers the request. */
function answering(version?: ResponseHead['version']) {
  const seen: RequestHead[] = [];
  const service: HttpService = {
    call: (head, _exchange, response) => {
      seen.push(head);
      const headers = new HeaderList();
      response.head({ status: 200, reason: '', version: version ?? head.version, headers, bodyBytes: null });
      return { data: () => true, end: () => {}, reset: () => {}, resumeResponse: () => {} };
    },
  };
  return { seen, service };
}

function collect() {
  const heads: ResponseHead[] = [];
  const errors: HeddleError[] = [];
  const response: ResponseStream = {
    informational: () => {},
    head: (head) => heads.push(head),
    data: () => true,
    end: () => {},
    fail: (error) => errors.push(error),
    resumeRequest: () => {},
  };
  return { heads, errors, response };
}

describe('HTTP/1 over HTTP/2 between proxies', () => {
  test.each(['HTTP/1.1', 'HTTP/1.0'] as const)('%s arrives as it left and is answered as it came', (version) => {
    const app = answering();
    const between: RequestHead[] = [];
    const inbound = downgradeFromHttp2(app.service, true);
    const stack = upgradeToHttp2({
      call: (head, exchange, response) => {
        between.push({ ...head, headers: head.headers.clone() });
        return inbound.call(head, exchange, response);
      },
    });
    const client = collect();
    stack.call(request(version, [['transfer-encoding', 'chunked']]), EXCHANGE, client.response);
    expect(between[0]?.version).toBe('HTTP/2');
    expect(between[0]?.headers.get('l5d-orig-proto')).toBe(version);
    expect(between[0]?.headers.has('transfer-encoding')).toBe(false);
    expect(app.seen[0]?.version).toBe(version);
    expect(app.seen[0]?.headers.has('l5d-orig-proto')).toBe(false);
    expect(client.heads[0]?.version).toBe(version);
    expect(client.heads[0]?.headers.has('l5d-orig-proto')).toBe(false);
  });

  test('HTTP/2 of the application passes untouched', () => {
    const app = answering();
    const client = collect();
    upgradeToHttp2(downgradeFromHttp2(app.service, true)).call(request('HTTP/2'), EXCHANGE, client.response);
    expect(app.seen[0]?.headers.has('l5d-orig-proto')).toBe(false);
    expect(client.heads[0]?.version).toBe('HTTP/2');
  });

  test('a header forged by a client without identity changes nothing and is removed', () => {
    const app = answering();
    downgradeFromHttp2(app.service, false).call(
      request('HTTP/2', [['l5d-orig-proto', 'HTTP/1.1']]),
      EXCHANGE,
      collect().response,
    );
    expect(app.seen[0]?.version).toBe('HTTP/2');
    expect(app.seen[0]?.headers.has('l5d-orig-proto')).toBe(false);
  });

  test('a header forged by an application does not leave its pod', () => {
    const app = answering();
    upgradeToHttp2(app.service).call(request('HTTP/2', [['l5d-orig-proto', 'HTTP/1.1']]), EXCHANGE, collect().response);
    expect(app.seen[0]?.headers.has('l5d-orig-proto')).toBe(false);
  });

  test.each([null, 'websocket'])(
    'a tunnel is never carried as HTTP/1: its bytes would be a request (%s)',
    (upgrade) => {
      const app = answering();
      downgradeFromHttp2(app.service, true).call(
        { ...request('HTTP/2', [['l5d-orig-proto', 'HTTP/1.1']]), method: 'CONNECT', upgrade, bodyBytes: 'unknown' },
        EXCHANGE,
        collect().response,
      );
      expect(app.seen[0]?.version).toBe('HTTP/2');
      expect(app.seen[0]?.headers.has('l5d-orig-proto')).toBe(false);
    },
  );

  test('a stream error becomes an upstream error, a refused stream stays one that may be sent again', () => {
    const failing = (error: HeddleError): HttpService => ({
      call: (_head, _exchange, response) => {
        response.fail(error);
        return { data: () => true, end: () => {}, reset: () => {}, resumeResponse: () => {} };
      },
    });
    const client = collect();
    const options = { source: 'upstream' } as const;
    upgradeToHttp2(failing(new HeddleError('h2-reset', 'CANCEL', options))).call(
      request('HTTP/1.1'),
      EXCHANGE,
      client.response,
    );
    upgradeToHttp2(failing(new HeddleError('h2-reset', 'REFUSED_STREAM', { ...options, retry: 'yes' }))).call(
      request('HTTP/1.1'),
      EXCHANGE,
      client.response,
    );
    expect(client.errors.map(({ code, retry }) => [code, retry])).toEqual([
      ['upgraded-h2', 'no'],
      ['h2-reset', 'yes'],
    ]);
  });
});
