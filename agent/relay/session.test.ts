import { describe, expect, test } from 'vitest';
import type { LinkStatus } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import { silentLog } from '#lib/log.ts';
import type { Subscriber } from './fan-out.ts';
import { RelaySession, SESSION_CERTIFIES_BURST, SESSION_CERTIFIES_MAX, type SessionLink } from './session.ts';

class FakeLink implements SessionLink {
  readonly sent: unknown[][] = [];
  certificate(stream: number, payload: Uint8Array): void {
    this.sent.push(['certificate', stream, Buffer.from(payload).toString()]);
  }
  certifyFailed(stream: number, status: LinkStatus): void {
    this.sent.push(['certifyFailed', stream, status.code, status.message]);
  }
  update(stream: number, payload: Uint8Array): void {
    this.sent.push(['update', stream, Buffer.from(payload).toString()]);
  }
  stale(stream: number, status: LinkStatus): void {
    this.sent.push(['stale', stream, status.code]);
  }
  watchEnd(stream: number, status: LinkStatus): void {
    this.sent.push(['watchEnd', stream, status.code, status.message]);
  }
}

function setUp(certify: (request: Uint8Array, podUid: string, signal: AbortSignal) => Promise<Uint8Array>) {
  const link = new FakeLink();
  const subscribers: Subscriber[] = [];
  const cancelled: Subscriber[] = [];
  const issued: Status[] = [];
  const clock = new FakeClock();
  const session = new RelaySession({
    link,
    podUid: 'uid-1',
    relay: {
      watch: (kind, _request, subscriber) => {
        if (kind !== 1) throw new HeddleError('bad-watch', `open a watch of kind "${kind}": expected 1`);
        subscribers.push(subscriber);
        return () => cancelled.push(subscriber);
      },
    },
    certify,
    onCertified: (status) => issued.push(status),
    clock,
    log: silentLog,
  });
  return { link, session, subscribers, cancelled, issued, clock };
}
const never = () => new Promise<Uint8Array>(() => {});
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise<void>((resolve) => queueMicrotask(resolve));
}

describe('relay session', () => {
  test('an answer too large for the link ends the watch of this worker, and nothing else', () => {
    const { link, session, subscribers, cancelled } = setUp(async () => new Uint8Array());
    session.onWatchOpen(1, 1, Buffer.from('a'));
    session.onWatchOpen(3, 1, Buffer.from('b'));
    const [first, second] = subscribers;
    link.update = (stream) => {
      if (stream === 1) throw new HeddleError('link-frame-too-large', 'frame of "5000000" bytes');
    };
    first!.update(Buffer.from('large'));
    expect(cancelled).toEqual([first]);
    expect(link.sent).toEqual([['watchEnd', 1, Status.resourceExhausted, 'frame of "5000000" bytes']]);
    second!.update(Buffer.from('small'));
    expect(cancelled).toHaveLength(1);
  });

  test('carries what a watch says on the stream that opened it', () => {
    const { link, session, subscribers, cancelled } = setUp(never);
    session.onWatchOpen(3, 1, Buffer.from('a'));
    session.onWatchOpen(5, 1, Buffer.from('b'));
    subscribers[1]!.update(Buffer.from('value'));
    subscribers[1]!.stale({ code: 14, message: '' });
    subscribers[0]!.end({ code: 5, message: 'no such service' });
    session.onWatchClose(5);
    session.onWatchClose(5);
    session.onWatchClose(3);
    expect(link.sent).toEqual([
      ['update', 5, 'value'],
      ['stale', 5, 14],
      ['watchEnd', 3, 5, 'no such service'],
    ]);
    expect(cancelled).toEqual([subscribers[1]]);
  });

  test('a request that cannot be read ends that watch only', () => {
    const { link, session } = setUp(never);
    session.onWatchOpen(3, 9, Buffer.from('a'));
    expect(link.sent).toEqual([['watchEnd', 3, 3, 'open a watch of kind "9": expected 1']]);
  });

  test('relays certificates, with the pod that asks', async () => {
    const seen: unknown[] = [];
    const { link, session, issued } = setUp(async (request, podUid) => {
      seen.push(Buffer.from(request).toString(), podUid);
      return Buffer.from('leaf');
    });
    const frame = Buffer.from('csr');
    session.onCertify(7, frame);
    frame.fill(0);
    await settle();
    expect(seen).toEqual(['csr', 'uid-1']);
    expect(link.sent).toEqual([['certificate', 7, 'leaf']]);
    expect(issued).toEqual([Status.ok]);
  });

  test('tells the worker why it has no certificate', async () => {
    const { link, session, issued } = setUp(async () => {
      throw new GrpcError(Status.failedPrecondition, 'pod is not on this node');
    });
    session.onCertify(7, Buffer.from('csr'));
    await settle();
    expect(link.sent).toEqual([['certifyFailed', 7, 9, 'pod is not on this node']]);
    expect(issued).toEqual([Status.failedPrecondition]);
  });

  test('a worker that asks without end does not use up what is the whole node’s', async () => {
    const { link, session, clock, issued } = setUp(async () => Buffer.from('leaf'));
    for (let stream = 1; stream <= SESSION_CERTIFIES_BURST + 3; stream++) {
      session.onCertify(stream, Buffer.from('csr'));
      await settle();
    }
    expect(issued).toHaveLength(SESSION_CERTIFIES_BURST);
    expect(link.sent.at(-1)).toEqual([
      'certifyFailed',
      SESSION_CERTIFIES_BURST + 3,
      Status.resourceExhausted,
      'ask for a certificate: expected at most one request in 5000 ms',
    ]);
    clock.advance(5_000);
    for (let stream = 50; stream < 53; stream++) {
      session.onCertify(stream, Buffer.from('csr'));
      await settle();
    }
    expect(issued).toHaveLength(SESSION_CERTIFIES_BURST + 1);
  });

  test('bounds requests in flight, and drops them with the link', async () => {
    let aborted = 0;
    const { link, session, subscribers, cancelled } = setUp(
      (_request, _uid, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            aborted++;
            reject(new Error('aborted'));
          });
        }),
    );
    for (let stream = 1; stream <= SESSION_CERTIFIES_MAX + 1; stream++) session.onCertify(stream, Buffer.from('csr'));
    session.onWatchOpen(9, 1, Buffer.from('a'));
    expect(link.sent.map((frame) => frame.slice(0, 3))).toEqual([
      ['certifyFailed', SESSION_CERTIFIES_MAX + 1, Status.resourceExhausted],
    ]);
    session.close();
    await settle();
    expect(aborted).toBe(SESSION_CERTIFIES_MAX);
    expect(cancelled).toEqual(subscribers);
    expect(link.sent).toHaveLength(1);
  });
});
