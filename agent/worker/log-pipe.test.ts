import { describe, expect, test } from 'vitest';
import { createLog } from '#lib/log.ts';
import { LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND_MAX, LogLines } from './log-pipe.ts';

function setUp() {
  const written: Record<string, unknown>[] = [];
  let nowMs = 0;
  const { log } = createLog({
    level: 'debug',
    fields: { pod: 'shop/web' },
    sink: { write: (line) => written.push(JSON.parse(line)) },
  });
  const lines = new LogLines(log, () => nowMs);
  return { written, lines, advance: (ms: number) => (nowMs += ms) };
}

describe('log lines of a worker', () => {
  test('keep level and fields, and get the name of the pod, whatever the cuts', () => {
    const text = Buffer.from('{"time":"t","level":"error","message":"it broke","port":80}\nplain → text\n');
    for (let cut = 0; cut <= text.length; cut++) {
      const { written, lines } = setUp();
      lines.push(text.subarray(0, cut));
      lines.push(text.subarray(cut));
      expect(written).toMatchObject([
        { level: 'error', message: 'it broke', port: 80, pod: 'shop/web' },
        { level: 'warn', message: 'worker wrote', line: 'plain → text', pod: 'shop/web' },
      ]);
    }
  });

  test('a line that only looks like one of ours is passed on as it is', () => {
    const { written, lines } = setUp();
    lines.push(Buffer.from('{"level":"error"}\n{"level":"toString","message":"m"}\n{broken\n\n  \n'));
    expect(written.map(({ line }) => line)).toEqual([
      '{"level":"error"}',
      '{"level":"toString","message":"m"}',
      '{broken',
    ]);
  });

  test('an endless line is cut, and the next one is whole', () => {
    const { written, lines } = setUp();
    for (let round = 0; round < 3; round++) lines.push(Buffer.alloc(LOG_LINE_BYTES_MAX, 'x'));
    lines.push(Buffer.from('\nnext\n'));
    expect(written).toMatchObject([{ cut: true, line: 'x'.repeat(LOG_LINE_BYTES_MAX) }, { line: 'next' }]);
    expect(written[1]).not.toHaveProperty('cut');
  });

  test('too many lines are dropped, counted, and told', () => {
    const { written, lines, advance } = setUp();
    for (let line = 0; line < LOG_LINES_PER_SECOND_MAX + 7; line++) lines.push(Buffer.from(`${line}\n`));
    expect(written).toHaveLength(LOG_LINES_PER_SECOND_MAX);
    advance(1000);
    lines.push(Buffer.from('later\n'));
    expect(written.slice(-2)).toMatchObject([
      { message: expect.stringContaining('dropped'), lines: 7 },
      { line: 'later' },
    ]);
  });

  test('an unfinished line is written at the end', () => {
    const { written, lines } = setUp();
    lines.push(Buffer.from('last words'));
    expect(written).toEqual([]);
    lines.flush();
    expect(written).toMatchObject([{ line: 'last words' }]);
  });
});
