import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LiterateCase, read, readFolder, replays } from '#proxy/io/testing/literate-http1.ts';
import { Tally, writeLines } from './support/counts.ts';
import { comparisonLine, differsFrom, expectedOf, isLaxerThanBoth, wholeRequest } from './support/http1-comparison.ts';
import { PEER_NAMES } from './support/http1-peers.ts';
import { Systems } from './support/http1-systems.ts';

const files = readFolder(path.resolve(import.meta.dirname, '../wire/http1'));
const cases = [...files].flatMap(([file, ofFile]) => ofFile.map((one) => ({ ...one, file })));

describe('HTTP/1.1 literate cases, read by the codec and, requests, by a worker, nginx and haproxy', () => {
  const tally = new Tally('http1', cases.length);
  const lines: string[] = [];
  let systems: Systems;

  beforeAll(async () => {
    systems = await Systems.start();
  });

  afterAll(async () => {
    tally.write();
    writeLines('http1', lines);
    await systems?.stop();
  });

  function replay(one: LiterateCase): void {
    for (const [how, pieces] of replays(one)) expect(read(one, pieces), how).toEqual(one.reading);
  }

  async function compare(one: LiterateCase, place: string): Promise<void> {
    const { whole, refusal, isUnread, isAnswered } = expectedOf(one);
    const outcomes = await systems.take(one.bytes, whole.length + (isAnswered ? 1 : 0));
    const line = comparisonLine(place, one.bytes, outcomes);
    lines.push(line);
    const { seen, parts, statuses, isClosed } = outcomes.heddle;
    // What the codec reads is what an origin behind a worker gets, and of what is refused at its head not a byte.
    expect(seen.map(wholeRequest), line).toEqual(whole);
    if (refusal === null || isUnread) expect(parts, line).toBe(0);
    const answers = [...whole.map(() => 200), ...(isAnswered ? [refusal!.status] : [])];
    expect([statuses, isClosed], line).toEqual([answers, true]);
    expect(isLaxerThanBoth(outcomes), line).toBe(false);
    for (const name of PEER_NAMES) expect(differsFrom(name, outcomes), line).toBe(false);
  }

  test.each(cases)('$file:$line $name', { timeout: 15_000 }, (one) =>
    tally.case(async () => {
      replay(one);
      if (one.kind === 'request') await compare(one, `${one.file}:${one.line}`);
    }),
  );

  test('a system that takes more, or other requests, would be found out', () => {
    const request = { method: 'GET', target: '/', host: 'a', body: '' };
    const took = (...seen: (typeof request)[]) => ({ seen, parts: 0, statuses: [], isClosed: true });
    const smuggled = { heddle: took(request, request), nginx: took(request), haproxy: took() };
    expect([isLaxerThanBoth(smuggled), differsFrom('nginx', smuggled)]).toEqual([true, false]);
    const differing = { heddle: took(request), nginx: took({ ...request, body: 'x' }), haproxy: took(request) };
    expect([isLaxerThanBoth(differing), differsFrom('nginx', differing)]).toEqual([false, true]);
  });
});
