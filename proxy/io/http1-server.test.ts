import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { DRAIN_IDLE_TIMEOUT_MS } from './http1-limits.ts';
import { type Http1ServerOptions, serveHttp1 } from './http1-server.ts';
import { headerList, RawPeer, RecordingService, rawPair, responseHead } from './testing/http1.ts';
import { Recorder, turns, until } from './testing/recorder.ts';
import { tcpPair } from './testing/tcp-pair.ts';

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n';

function setUp(options: Partial<Http1ServerOptions> = {}, answer?: ConstructorParameters<typeof RecordingService>[0]) {
  const clock = new FakeClock();
  const service = new RecordingService(answer ?? null);
  const [client, far] = rawPair();
  const refused: number[] = [];
  const closed: (HeddleError | null)[] = [];
  const connection = serveHttp1(far, {
    service,
    clock,
    clientIdentity: 'cart.shop',
    onBadRequest: (status) => refused.push(status),
    onClose: (error) => closed.push(error),
    ...options,
  });
  return { clock, service, client, connection, refused, closed, far };
}

describe('requests and responses', () => {
  test('one exchange, then another on the same connection', async () => {
    const { client, service, connection } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    expect(service.last.isEnded).toBe(true);
    expect(service.last.exchange).toMatchObject({ clientAddress: '10.0.0.1', clientIdentity: 'cart.shop' });
    expect(connection.activeExchanges).toBe(1);
    service.last.reply(200, 'hello', { headers: headerList('x-a: 1') });
    await until(() => client.text !== '');
    expect(client.text).toBe('HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello');
    expect(client.chunks.length).toBe(1);
    expect(connection.isIdle).toBe(true);
    client.send('POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody');
    await until(() => service.requests.length === 2);
    expect(service.last.body).toBe('body');
    service.last.reply(201);
    await until(() => client.text.includes('201'));
  });

  test('chunks and trailers both ways', async () => {
    const { client, service } = setUp();
    client.send(
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n',
    );
    await until(() => service.last?.isEnded);
    expect(service.last.body).toBe('abc');
    expect(service.last.trailers!.get('x-t')).toBe('1');
    const { response } = service.last;
    response.head(responseHead({ bodyBytes: 'unknown' }));
    response.data(Buffer.from('0123456789abcdef'));
    response.data(Buffer.from('z'));
    response.end(headerList('x-sum: 2'));
    await until(() => client.text.endsWith('\r\n\r\n'));
    expect(client.text).toBe(
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n1\r\nz\r\n0\r\nx-sum: 2\r\n\r\n',
    );
  });

  test.each([
    ['HEAD', 200, 'content-length: 5\r\n'],
    ['GET', 304, 'content-length: 5\r\n'],
    ['GET', 204, ''],
  ])('%s answered with %i has no body', async (method, status, field) => {
    const { client, service } = setUp();
    client.send(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`);
    await until(() => service.requests.length === 1);
    const { response } = service.last;
    response.head(responseHead({ status, reason: 'R', headers: headerList('content-length: 5'), bodyBytes: null }));
    response.data(Buffer.from('never'));
    response.end(null);
    client.send(GET);
    await until(() => service.requests.length === 2);
    expect(client.text).toBe(`HTTP/1.1 ${status} R\r\n${field}\r\n`);
  });

  test('a response of another protocol that names no length has length 0', async () => {
    const { client, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    service.last.response.head(responseHead({ version: 'HTTP/2', reason: '', bodyBytes: null }));
    service.last.response.end(null);
    await until(() => client.text !== '');
    expect(client.text).toBe('HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n');
  });

  test('HTTP/1.0: no chunks, no 1xx, and the connection ends unless it was asked to stay', async () => {
    const { client, service } = setUp();
    client.send('GET / HTTP/1.0\r\n\r\n');
    await until(() => service.requests.length === 1);
    const { response } = service.last;
    response.informational(responseHead({ status: 103 }));
    response.head(responseHead({ bodyBytes: 'unknown' }));
    response.data(Buffer.from('all of it'));
    response.end(null);
    await until(() => client.isEnded);
    expect(client.text).toBe('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it');

    const kept = setUp({}, (request) => request.reply(200));
    kept.client.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
    await until(() => kept.client.text !== '');
    expect(kept.client.text).toContain('connection: keep-alive\r\n');
    kept.client.send('GET / HTTP/1.0\r\n\r\n');
    await until(() => kept.client.isEnded);
    expect(kept.service.requests.length).toBe(2);
  });

  test('100 Continue passes before the body comes', async () => {
    const { client, service } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n');
    await until(() => service.requests.length === 1);
    expect(service.last.head.headers.get('expect')).toBe('100-continue');
    service.last.response.informational(responseHead({ status: 100, reason: 'Continue' }));
    await until(() => client.text === 'HTTP/1.1 100 Continue\r\n\r\n');
    client.send('ok');
    await until(() => service.last.isEnded);
    service.last.reply(200);
    await until(() => client.text.includes('200 OK'));
  });

  test('what was read for detection is served first', async () => {
    const { service } = setUp({ received: Buffer.from(GET) });
    await until(() => service.requests.length === 1);
    expect(service.last.head.path).toBe('/x');
  });
});

describe('pipelining', () => {
  test('requests are answered in order, one at a time', async () => {
    const { client, service } = setUp();
    client.send(GET + GET + GET);
    for (const count of [1, 2, 3]) {
      await until(() => service.requests.length === count);
      await turns(3);
      expect(service.requests.length).toBe(count);
      service.last.reply(200, String(count));
    }
    await until(() => client.text.endsWith('3'));
    expect(client.text.match(/\d$|\d(?=HTTP)/g)).toEqual(['1', '2', '3']);
  });

  test('a service that answers at once may answer all of them', async () => {
    const { client, service } = setUp({}, (request) => request.reply(200, 'x'));
    client.send(GET.repeat(50));
    await until(() => service.requests.length === 50);
    await until(() => client.text.match(/200 OK/g)?.length === 50);
  });

  test('no more than a read of them is kept while one is under way', async () => {
    const { client, service, far } = setUp();
    while (client.send(GET.repeat(1000)));
    await turns(20);
    expect(service.requests.length).toBe(1);
    const kept = far.bytesRead;
    expect(kept).toBeLessThan(150_000);
    while (client.stream.bytesQueued < 200_000) client.send(GET.repeat(1000));
    await turns(20);
    expect(far.bytesRead).toBe(kept);
  });

  test('a client that does not read its answers gets no more of them', async () => {
    const clock = new FakeClock();
    const service = new RecordingService((request) => request.reply(200, 'y'.repeat(20_000)));
    const [client, far] = rawPair();
    client.stream.pause();
    serveHttp1(far, { service, clock, clientIdentity: null });
    client.send(GET.repeat(500));
    await turns(50);
    expect(service.requests.length).toBeLessThan(60);
    expect(far.bytesQueued).toBeLessThan(600_000);
    client.stream.resume();
    await until(() => service.requests.length === 500);
  });
});

describe('backpressure', () => {
  test('a service that is full stops the reader until it has room', async () => {
    const { client, service, far } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n');
    await until(() => service.requests.length === 1);
    service.last.takesMore = false;
    for (let index = 0; index < 50; index++) client.send('z'.repeat(100_000));
    await turns(20);
    const taken = service.last.body.length;
    expect(taken).toBeLessThanOrEqual(100_000);
    expect(far.bytesRead).toBeLessThan(300_000);
    service.last.takesMore = true;
    service.last.response.resumeRequest();
    await until(() => service.last.body.length === 5_000_000);
  });

  test('a client that does not read stops the service until it does', async () => {
    const { client, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    client.stream.pause();
    const { response } = service.last;
    response.head(responseHead({ bodyBytes: 10_000_000 }));
    let sent = 0;
    while (sent < 10_000_000 && response.data(Buffer.alloc(100_000))) {
      sent += 100_000;
      await turns(1);
    }
    expect(sent).toBeLessThan(1_000_000);
    expect(service.last.resumes).toBe(0);
    client.stream.resume();
    await until(() => service.last.resumes > 0);
  });
});

describe('early answers', () => {
  test('the client is told to stop, and its rest is read over so that it gets the answer', async () => {
    const { client, service, closed } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart');
    await until(() => service.requests.length === 1);
    service.last.reply(413, 'too much');
    await until(() => client.isEnded);
    expect(client.text).toContain('413');
    expect(client.text).toContain('connection: close');
    expect(client.text.endsWith('too much')).toBe(true);
    expect(closed).toEqual([]);
    client.send('x'.repeat(500_000));
    await turns(10);
    expect(service.last.body).toBe('start');
    client.stream.end();
    await until(() => closed.length === 1);
    expect(closed).toEqual([null]);
  });

  test('a client that goes on for long is let go', async () => {
    const { client, service, closed, clock } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n');
    await until(() => service.requests.length === 1);
    service.last.reply(413);
    await until(() => client.isEnded);
    for (let index = 0; index < 30 && closed.length === 0; index++) {
      client.send('x'.repeat(100_000));
      await turns(2);
    }
    expect(closed.length).toBe(1);
    const quiet = setUp({}, (request) => request.reply(200));
    quiet.client.send('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    await until(() => quiet.client.isEnded);
    quiet.clock.advance(6_000);
    await until(() => quiet.closed.length === 1);
    clock.advance(1);
  });
});

describe('what cannot be read', () => {
  test.each([
    ['GET / HTTP/1.1\r\n\r\n', 400, 'Bad Request'],
    ['GET / HTTP/1.1\nHost: a\n\n', 400, 'Bad Request'],
    [`GET /${'a'.repeat(40_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414, 'URI Too Long'],
    [`GET / HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`, 431, 'Request Header Fields Too Large'],
    [`GET / HTTP/1.1\r\nHost: a\r\n${'X: 1\r\n'.repeat(100)}\r\n`, 431, 'Request Header Fields Too Large'],
  ])('%.30j is refused with %i', async (bytes, status, reason) => {
    const { client, service, refused } = setUp();
    client.send(bytes);
    await until(() => client.isEnded);
    expect(client.text).toBe(`HTTP/1.1 ${status} ${reason}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
    expect(service.requests.length).toBe(0);
    expect(refused).toEqual([status]);
  });

  test('a broken body before the answer: 400, and the service is told', async () => {
    const { client, service } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX');
    await until(() => client.isEnded);
    expect(client.text).toContain('HTTP/1.1 400 ');
    expect(service.last.resetWith?.code).toBe('request-invalid');
  });

  test('a broken body behind the answer: cut', async () => {
    const { client, service } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n');
    await until(() => service.last?.body === 'a');
    service.last.response.head(responseHead({ bodyBytes: 'unknown' }));
    client.send('zz');
    await until(() => client.closedWith !== undefined);
    expect(client.closedWith?.code).toBe('connection-reset');
    expect(service.last.resetWith?.code).toBe('request-invalid');
  });

  test('requests before the wrong one are answered', async () => {
    const { client } = setUp({}, (request) => request.reply(200, 'fine'));
    client.send(`${GET}GARBAGE\r\n\r\n`);
    await until(() => client.isEnded);
    expect(client.text).toMatch(/200 OK[\s\S]*fineHTTP\/1.1 400 /);
  });
});

describe('clients that leave', () => {
  test('by reset', async () => {
    const { client, service, closed } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    client.stream.reset();
    await until(() => closed.length === 1);
    expect(service.last.resetWith?.code).toBe('connection-reset');
    service.last.reply(200, 'too late');
  });

  test('by FIN while they should wait', async () => {
    const { client, service } = setUp();
    client.send(GET);
    client.stream.end();
    await until(() => service.last?.resetWith != null);
    expect(service.last.resetWith?.code).toBe('client-aborted');
  });

  test('in the middle of a body', async () => {
    const { client, service } = setUp();
    client.send('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\nab');
    client.stream.end();
    await until(() => service.last?.resetWith != null);
    expect(service.last.isEnded).toBe(false);
  });

  test('not those that asked to close and finished sending', async () => {
    const { client, service } = setUp();
    client.send('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    client.stream.end();
    await until(() => service.requests.length === 1);
    await turns(3);
    service.last.reply(200, 'for you');
    await until(() => client.isEnded);
    expect(client.text).toMatch(/connection: close\r\n\r\nfor you$/);
  });
});

describe('services that fail', () => {
  test('before the head: 502, and the connection lives on', async () => {
    const { client, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    service.last.response.fail(new HeddleError('test', 'no'));
    await until(() => client.text !== '');
    expect(client.text).toBe('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n');
    client.send(GET);
    await until(() => service.requests.length === 2);
  });

  test('behind the head: cut, so that nobody takes the part for the whole', async () => {
    const { client, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    service.last.response.head(responseHead({ bodyBytes: 'unknown' }));
    service.last.response.data(Buffer.from('part'));
    await turns(3);
    service.last.response.fail(new HeddleError('test', 'no'));
    await until(() => client.closedWith !== undefined);
    expect(client.closedWith?.code).toBe('connection-reset');
  });

  test.each([
    ['more', 'abcd'],
    ['less', 'ab'],
  ])('giving %s than announced: cut', async (_what, body) => {
    const { client, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    service.last.response.head(responseHead({ bodyBytes: 3 }));
    service.last.response.data(Buffer.from(body));
    service.last.response.end(null);
    await until(() => client.closedWith !== undefined);
    expect(client.isEnded).toBe(false);
    expect(service.last.resetWith?.code).toBe('response-length-wrong');
  });
});

describe('times', () => {
  test('a connection that says nothing is closed without a word', async () => {
    const { client, clock } = setUp({ headerTimeoutMs: 1000 });
    clock.advance(999);
    await turns(2);
    expect(client.isEnded).toBe(false);
    clock.advance(1);
    await until(() => client.isEnded);
    expect(client.text).toBe('');
  });

  test('a head that trickles is answered with 408, whatever comes in between', async () => {
    const { client, clock, refused } = setUp({ headerTimeoutMs: 1000 });
    client.send('GET / HTTP/1.1\r\n');
    await turns(2);
    for (let index = 0; index < 9; index++) {
      client.send('X');
      clock.advance(100);
      await turns(2);
    }
    expect(client.text).toBe('');
    clock.advance(200);
    await until(() => client.isEnded);
    expect(client.text).toMatch(/^HTTP\/1.1 408 /);
    expect(refused).toEqual([408]);
  });

  test('an exchange has all the time that the layers give it', async () => {
    const { client, service, clock } = setUp({ headerTimeoutMs: 1000, idleTimeoutMs: 1000 });
    client.send(GET);
    await until(() => service.requests.length === 1);
    clock.advance(100_000);
    await turns(2);
    service.last.reply(200);
    await until(() => client.text.includes('200'));
    expect(client.isEnded).toBe(false);
  });

  test('an idle connection is closed, one in use is not', async () => {
    const { client, clock, service } = setUp({ idleTimeoutMs: 1000 }, (request) => request.reply(200));
    for (let index = 0; index < 5; index++) {
      client.send(GET);
      await until(() => service.requests.length === index + 1);
      await turns(2);
      clock.advance(900);
      await turns(2);
      expect(client.isEnded).toBe(false);
    }
    clock.advance(200);
    await until(() => client.isEnded);
  });
});

describe('drain', () => {
  test('an idle connection that stays silent ends soon', async () => {
    const { client, connection, closed, clock } = setUp();
    connection.drain();
    connection.drain();
    clock.advance(DRAIN_IDLE_TIMEOUT_MS);
    await until(() => client.isEnded);
    client.stream.end();
    await until(() => closed.length === 1);
    expect(closed).toEqual([null]);
  });

  test('an exchange under way says so in its answer', async () => {
    const { client, connection, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    connection.drain();
    await turns(2);
    expect(client.isEnded).toBe(false);
    service.last.reply(200, 'bye');
    await until(() => client.isEnded);
    expect(client.text).toMatch(/connection: close\r\n\r\nbye$/);
  });

  test('behind a head that promised more, the connection ends with the response', async () => {
    const { client, connection, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    service.last.response.head(responseHead({ bodyBytes: 2 }));
    await turns(2);
    connection.drain();
    service.last.response.data(Buffer.from('ok'));
    service.last.response.end(null);
    await until(() => client.isEnded);
    expect(client.text.endsWith('ok')).toBe(true);
  });

  test('closing now resets everything', async () => {
    const { client, connection, service } = setUp();
    client.send(GET);
    await until(() => service.requests.length === 1);
    connection.close(new HeddleError('test-close', 'now'));
    await until(() => client.closedWith !== undefined);
    expect(service.last.resetWith?.code).toBe('test-close');
  });
});

describe('upgrades', () => {
  const UPGRADE = 'GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n';

  test('bytes pass both ways, and so do the half-closes', async () => {
    const { client, service, closed } = setUp();
    client.send(`${UPGRADE}early`);
    await until(() => service.requests.length === 1);
    expect(service.last.isEnded).toBe(false);
    const { response } = service.last;
    response.head(
      responseHead({ status: 101, reason: 'Switching Protocols', headers: headerList('upgrade: websocket') }),
    );
    await until(() => service.last.body === 'early');
    response.data(Buffer.from('from the server'));
    await until(() => client.text.endsWith('from the server'));
    expect(client.text).toBe(
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nfrom the server',
    );
    client.send(' late');
    client.stream.end();
    await until(() => service.last.isEnded);
    expect(service.last.body).toBe('early late');
    response.data(Buffer.from('!'));
    response.end(null);
    await until(() => client.isEnded && closed.length === 1);
    expect(client.text.endsWith('server!')).toBe(true);
    expect(closed).toEqual([null]);
    expect(service.last.resetWith).toBeNull();
  });

  test('the server may finish first', async () => {
    const { client, service, closed } = setUp();
    client.send(UPGRADE);
    await until(() => service.requests.length === 1);
    const { response } = service.last;
    response.head(responseHead({ status: 101 }));
    response.end(null);
    await until(() => client.isEnded);
    client.send('still here');
    await until(() => service.last.body === 'still here');
    client.stream.end();
    await until(() => service.last.isEnded && closed.length === 1);
  });

  test('refused, the connection goes on with HTTP', async () => {
    const { client, service } = setUp();
    client.send(UPGRADE + GET);
    await until(() => service.requests.length === 1);
    service.last.reply(400, 'no');
    await until(() => service.requests.length === 2);
    expect(service.requests[0]!.isEnded).toBe(false);
    expect(service.last.head.path).toBe('/x');
  });

  test('CONNECT opens a tunnel with any 2xx', async () => {
    const { client, service } = setUp();
    client.send('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n');
    await until(() => service.requests.length === 1);
    service.last.response.head(responseHead({ bodyBytes: null }));
    client.send('hello');
    await until(() => service.last.body === 'hello');
    client.stream.reset();
    await until(() => service.last.resetWith !== null);
  });
});

describe('over TCP', () => {
  test('a reset reaches the client as one, and its own reaches the service', async () => {
    const [near, far] = await tcpPair();
    const client = new RawPeer(near);
    const service = new RecordingService();
    serveHttp1(far, { service, clock: new FakeClock(), clientIdentity: null });
    client.send(GET);
    await until(() => service.requests.length === 1);
    near.reset();
    await until(() => service.last.resetWith !== null);
    const [near2, far2] = await tcpPair();
    const client2 = new Recorder(near2);
    near2.resume();
    const connection = serveHttp1(far2, { service, clock: new FakeClock(), clientIdentity: null });
    near2.write(Buffer.from(GET));
    await until(() => service.requests.length === 2);
    connection.close();
    await until(() => client2.closedWith !== undefined);
    expect(client2.closedWith?.code).toBe('connection-reset');
  });
});
