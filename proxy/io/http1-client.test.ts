import { describe, expect, test } from 'vitest';
import type { RequestStream } from '../http.ts';
import { connectHttp1, type Http1Client, type Http1ClientOptions } from './http1-client.ts';
import { EXCHANGE, headerList, ReceivedResponse, rawPair, requestHead } from './testing/http1.ts';
import { turns, until } from './testing/recorder.ts';

function setUp(options: Http1ClientOptions = {}) {
  const [server, far] = rawPair();
  const events: string[] = [];
  const client = connectHttp1(far, {
    onIdle: () => events.push('idle'),
    onClosed: () => events.push('closed'),
    onGone: (error) => events.push(`gone ${error?.code ?? 'in order'}`),
    ...options,
  });
  return { server, client, events, far };
}

function get(client: Http1Client, part: Parameters<typeof requestHead>[0] = {}): [RequestStream, ReceivedResponse] {
  const response = new ReceivedResponse();
  const request = client.call(requestHead(part), EXCHANGE, response);
  return [request, response];
}

/** A whole exchange, so that the connection is a used one. */
async function warmUp(world: ReturnType<typeof setUp>): Promise<void> {
  const [request, response] = get(world.client);
  request.end(null);
  await until(() => world.server.text !== '');
  world.server.send('HTTP/1.1 204 No Content\r\n\r\n');
  await until(() => response.isEnded);
  world.server.chunks.length = 0;
}

describe('an exchange', () => {
  test('leaves in one write and frees the connection', async () => {
    const { server, client, events } = setUp();
    const [request, response] = get(client, { method: 'POST', bodyBytes: 5, headers: headerList('host: a', 'x: 1') });
    expect(client.state).toBe('busy');
    request.data(Buffer.from('hello'));
    request.end(null);
    await until(() => server.text !== '');
    expect(server.chunks.length).toBe(1);
    expect(server.text).toBe('POST / HTTP/1.1\r\nhost: a\r\nx: 1\r\ncontent-length: 5\r\n\r\nhello');
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nok');
    await until(() => response.isEnded);
    expect(response.heading).toMatchObject({ status: 200, bodyBytes: 2 });
    expect(response.body).toBe('ok');
    expect(client.state).toBe('idle');
    expect(events).toEqual(['idle']);
  });

  test('sends its head at once when the body takes its time', async () => {
    const { server, client } = setUp();
    const [request] = get(client, { method: 'POST', bodyBytes: 'unknown' });
    await until(() => server.text.endsWith('transfer-encoding: chunked\r\n\r\n'));
    request.data(Buffer.from('abc'));
    request.data(Buffer.from('defghijklmnopqrst'));
    request.end(headerList('x-sum: 1'));
    await until(() => server.text.endsWith('0\r\nx-sum: 1\r\n\r\n'));
    expect(server.text).toContain('\r\n\r\n3\r\nabc\r\n11\r\ndefghijklmnopqrst\r\n0\r\n');
  });

  test('gets chunks, trailers and informational responses', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n');
    server.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n');
    await until(() => response.isEnded);
    expect(response.informationals).toEqual([103]);
    expect(response.body).toBe('abc');
    expect(response.trailers!.get('x')).toBe('y');
    expect(client.state).toBe('idle');
  });

  test('whose response ends with the connection ends it', async () => {
    const { server, client, events } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send('HTTP/1.1 200 OK\r\n\r\nall of it');
    server.stream.end();
    await until(() => response.isEnded);
    expect(response.body).toBe('all of it');
    expect(client.state).toBe('closed');
    await until(() => events.length === 2);
    expect(events).toEqual(['closed', 'gone in order']);
  });

  test.each([
    'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n',
  ])('answered with %j is the last', async (answer) => {
    const { server, client, events } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send(answer);
    await until(() => response.isEnded && server.isEnded);
    expect(client.state).toBe('closed');
    expect(events[0]).toBe('closed');
  });

  test('with HEAD has no body to wait for', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client, { method: 'HEAD' });
    request.end(null);
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n');
    await until(() => response.isEnded);
    expect(client.state).toBe('idle');
    expect(response.heading!.headers.get('content-length')).toBe('1000');
  });

  test('writes Host from the authority, and HTTP/1.0 where there is none', async () => {
    const { server, client } = setUp();
    const [first, response] = get(client, { authority: 'other:81', headers: headerList('host: a', 'x: 1') });
    first.end(null);
    await until(() => server.text !== '');
    expect(server.text).toBe('GET / HTTP/1.1\r\nhost: other:81\r\nx: 1\r\n\r\n');
    server.send('HTTP/1.1 204 No Content\r\n\r\n');
    await until(() => response.isEnded);
    server.chunks.length = 0;
    const [second] = get(client, { version: 'HTTP/1.0', authority: '', headers: headerList() });
    second.end(null);
    await until(() => server.text !== '');
    expect(server.text).toBe('GET / HTTP/1.0\r\n\r\n');
  });

  test('keeps the absolute form for proxies, te for trailers, and both ends of CONNECT', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client, {
      isAbsoluteForm: true,
      path: '/p',
      headers: headerList('host: a', 'te: trailers'),
    });
    request.end(null);
    await until(() => server.text !== '');
    expect(server.text).toBe('GET http://a/p HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n');
    server.send('HTTP/1.1 204 No Content\r\n\r\n');
    await until(() => response.isEnded);
    server.chunks.length = 0;
    get(client, {
      method: 'CONNECT',
      authority: 'b:1',
      path: '',
      upgrade: 'connect',
      headers: headerList('host: b:1'),
    });
    await until(() => server.text !== '');
    expect(server.text).toBe('CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n');
  });
});

describe('what HTTP/2 lets through and HTTP/1 does not', () => {
  test.each([
    [{ path: '/ HTTP/1.1\r\nx: y' }],
    [{ path: '/a b' }],
    [{ method: 'GET /' }],
    [{ authority: 'a\r\nx: y' }],
    [{ method: 'CONNECT', upgrade: 'websocket' }],
  ])('%j is not sent', async (part) => {
    const { server, client } = setUp();
    const [request, response] = get(client, { version: 'HTTP/2', ...part });
    request.end(null);
    await until(() => response.failure !== null);
    expect(response.failure!.code).toBe('request-not-sent');
    expect(client.state).toBe('idle');
    await turns(3);
    expect(server.text).toBe('');
  });

  test('values with line ends do not become lines', async () => {
    const { server, client } = setUp();
    const [request] = get(client, { headers: headerList('host: a', 'x: a\r\nevil: 1') });
    request.end(null);
    await until(() => server.text !== '');
    expect(server.text).toBe('GET / HTTP/1.1\r\nhost: a\r\nx: a  evil: 1\r\n\r\n');
  });
});

describe('servers that misbehave', () => {
  test.each([
    ['garbage', 'SSH-2.0-OpenSSH\r\n'],
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['an upgrade that nobody asked for', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n'],
    ['endless 1xx', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(20)],
    ['an endless head', `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(70_000)}`],
  ])('%s fails the exchange and closes', async (_what, bytes) => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send(bytes);
    await until(() => response.failure !== null);
    expect(response.failure).toMatchObject({ code: 'response-invalid', source: 'upstream', retry: 'no' });
    expect(client.state).toBe('closed');
  });

  test('bytes behind a response close the connection, and the response stands', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n');
    await until(() => response.isEnded);
    expect(response.body).toBe('ok');
    expect(client.state).toBe('closed');
  });

  test('bytes that nobody asked for close an idle connection', async () => {
    const { server, client, events } = setUp();
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    await until(() => client.state === 'closed');
    expect(events[0]).toBe('closed');
  });

  test('an answer before the request is whole stands, and the connection goes', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client, { method: 'POST', bodyBytes: 10 });
    request.data(Buffer.from('abc'));
    server.send('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno');
    await until(() => response.isEnded);
    expect(response.body).toBe('no');
    expect(client.state).toBe('closed');
    request.data(Buffer.from('defghij'));
    request.end(null);
    await until(() => server.closedWith !== undefined);
  });

  test('a close in the middle of a body is a failure', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc');
    server.stream.end();
    await until(() => response.failure !== null);
    expect(response.body).toBe('abc');
    expect(response.failure).toMatchObject({ code: 'upstream-closed', retry: 'no' });
  });
});

describe('a server that closes without an answer', () => {
  test('fails the first exchange of a connection for good', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    server.stream.end();
    await until(() => response.failure !== null);
    expect(response.failure).toMatchObject({ code: 'upstream-closed', source: 'upstream', retry: 'no' });
  });

  test('fails a later one with a hint that it may be sent again', async () => {
    const world = setUp();
    await warmUp(world);
    const [request, response] = get(world.client);
    request.end(null);
    world.server.stream.reset();
    await until(() => response.failure !== null);
    expect(response.failure!.retry).toBe('if-reused');
  });

  test('with a replay, sends an idempotent request again, and the caller notices nothing', async () => {
    const sent: string[] = [];
    const streams: Record<string, unknown>[] = [];
    const world = setUp({
      replay: (head, _exchange, response) => {
        sent.push(head.path);
        queueMicrotask(() => {
          response.head({ status: 200, reason: '', version: 'HTTP/1.1', headers: headerList(), bodyBytes: 0 });
          response.end(null);
        });
        const stream = { data: () => true, end: () => sent.push('end'), reset() {}, resumeResponse() {} };
        streams.push(stream);
        return stream;
      },
    });
    await warmUp(world);
    const [request, response] = get(world.client, { path: '/again' });
    request.end(null);
    await turns(2);
    world.server.stream.end();
    await until(() => response.isEnded);
    expect(sent).toEqual(['/again', 'end']);
    expect(response.failure).toBeNull();
  });

  test.each([
    ['POST', { method: 'POST' }],
    ['a body', { method: 'PUT', bodyBytes: 1 }],
    ['an upgrade', { upgrade: 'websocket' }],
  ])('never sends %s again', async (_what, part) => {
    let replays = 0;
    const world = setUp({
      replay: (_head, _exchange, response) => {
        replays++;
        queueMicrotask(() => response.fail(new Error('unreachable') as never));
        return { data: () => true, end() {}, reset() {}, resumeResponse() {} };
      },
    });
    await warmUp(world);
    const [request, response] = get(world.client, part);
    if (!('upgrade' in part)) {
      if ('bodyBytes' in part) request.data(Buffer.from('x'));
      request.end(null);
    }
    await turns(2);
    world.server.stream.end();
    await until(() => response.failure !== null);
    expect(replays).toBe(0);
  });

  test('an idle connection that the server closes is closed quietly', async () => {
    const world = setUp();
    await warmUp(world);
    world.server.stream.end();
    await until(() => world.client.state === 'closed');
    await until(() => world.events.includes('gone in order'));
  });
});

describe('callers', () => {
  test('that give up cut the connection', async () => {
    const { server, client } = setUp();
    const [request, response] = get(client);
    request.end(null);
    await until(() => server.text !== '');
    request.reset(new Error('enough') as never);
    await until(() => server.closedWith !== undefined);
    expect(client.state).toBe('closed');
    expect(response.isOver).toBe(false);
  });

  test('that give less or more than announced cut the connection', async () => {
    for (const body of ['ab', 'abcd']) {
      const { server, client } = setUp();
      const [request, response] = get(client, { method: 'POST', bodyBytes: 3 });
      request.data(Buffer.from(body));
      request.end(null);
      await until(() => response.failure !== null && server.closedWith !== undefined);
      expect(response.failure!.code).toBe('request-length-wrong');
    }
  });

  test('that call a busy connection are refused', async () => {
    const { client } = setUp();
    get(client);
    const [, response] = get(client);
    await until(() => response.failure !== null);
    expect(response.failure!.code).toBe('request-not-sent');
  });
});

describe('backpressure', () => {
  test('a caller that is full stops the reader', async () => {
    const { server, client, far } = setUp();
    const [request, response] = get(client);
    request.end(null);
    response.takesMore = false;
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n');
    for (let index = 0; index < 10; index++) server.send('x'.repeat(100_000));
    await turns(10);
    expect(response.bytes).toBeLessThan(200_000);
    expect(far.bytesRead).toBeLessThan(200_000);
    response.takesMore = true;
    request.resumeResponse();
    await until(() => response.isEnded);
    expect(response.bytes).toBe(1_000_000);
  });

  test('a server that does not read stops the caller', async () => {
    const { server, client } = setUp();
    server.stream.pause();
    const [request, response] = get(client, { method: 'POST', bodyBytes: 'unknown' });
    let sent = 0;
    for (; sent < 5_000_000 && request.data(Buffer.alloc(50_000)); sent += 50_000) await turns(1);
    expect(sent).toBeLessThan(1_000_000);
    server.stream.resume();
    await until(() => response.resumes > 0);
  });
});

describe('a tunnel', () => {
  test('carries bytes and half-closes', async () => {
    const { server, client, events } = setUp();
    const [request, response] = get(client, { upgrade: 'websocket', headers: headerList('host: a', 'k: v') });
    await until(() => server.text !== '');
    expect(server.text).toBe('GET / HTTP/1.1\r\nhost: a\r\nk: v\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n');
    server.send('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhi');
    await until(() => response.body === 'hi');
    expect(response.heading!.status).toBe(101);
    expect(response.heading!.headers.get('upgrade')).toBe('websocket');
    request.data(Buffer.from('ho'));
    await until(() => server.text.endsWith('\r\n\r\nho'));
    request.end(null);
    await until(() => server.isEnded);
    server.send('!');
    server.stream.end();
    await until(() => response.isEnded && events.length === 2);
    expect(response.body).toBe('hi!');
    expect(events).toEqual(['closed', 'gone in order']);
  });

  test('refused leaves an ordinary connection', async () => {
    const { server, client } = setUp();
    const [, response] = get(client, { upgrade: 'websocket' });
    server.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno');
    await until(() => response.isEnded);
    expect(client.state).toBe('idle');
  });

  test('that breaks fails', async () => {
    const { server, client } = setUp();
    const [, response] = get(client, { upgrade: 'websocket' });
    server.send('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n');
    await until(() => response.heading !== null);
    server.stream.reset();
    await until(() => response.failure !== null);
  });
});
