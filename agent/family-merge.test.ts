import { describe, expect, test } from 'vitest';
import { FamilyMerge } from './family-merge.ts';

const worker = (pod: string) =>
  `# HELP request_total Requests.\n# TYPE request_total counter\nrequest_total{pod="${pod}"} 1\n` +
  `request_total{pod="${pod}",tls="true"} 2\n# TYPE latency_ms histogram\nlatency_ms_bucket{pod="${pod}",le="1"} 3\n` +
  `latency_ms_sum{pod="${pod}"} 4\n`;

function merged(merge: FamilyMerge): string {
  return Buffer.concat([...merge.text()]).toString();
}

describe('family merge', () => {
  test('puts the samples of all workers under one header, whatever the cuts', () => {
    const whole = worker('b');
    for (let cut = 0; cut <= whole.length; cut++) {
      const merge = new FamilyMerge();
      const [a, b] = [merge.source(), merge.source()];
      a.push(Buffer.from(worker('a')));
      const chunk = Buffer.from(whole);
      b.push(chunk.subarray(0, cut));
      b.push(chunk.subarray(cut));
      chunk.fill(0);
      expect(merged(merge)).toBe(
        '# TYPE latency_ms histogram\nlatency_ms_bucket{pod="a",le="1"} 3\nlatency_ms_sum{pod="a"} 4\n' +
          'latency_ms_bucket{pod="b",le="1"} 3\nlatency_ms_sum{pod="b"} 4\n' +
          '# HELP request_total Requests.\n# TYPE request_total counter\nrequest_total{pod="a"} 1\n' +
          'request_total{pod="a",tls="true"} 2\nrequest_total{pod="b"} 1\nrequest_total{pod="b",tls="true"} 2\n',
      );
    }
  });

  test('the order is that of the sources, whoever answers first', () => {
    const merge = new FamilyMerge();
    const [a, b] = [merge.source(), merge.source()];
    b.push(Buffer.from('# TYPE x counter\nx{pod="b"} 1\n'));
    a.push(Buffer.from('# TYPE x counter\nx{pod="a"} 1\n'));
    expect(merged(merge)).toBe('# TYPE x counter\nx{pod="a"} 1\nx{pod="b"} 1\n');
  });

  test('texts that interleave keep their families', () => {
    const merge = new FamilyMerge();
    const [a, b] = [merge.source(), merge.source()];
    a.push(Buffer.from('# TYPE x counter\nx{pod="a"} 1\n'));
    b.push(Buffer.from('# TYPE y counter\ny{pod="b"} 1\n'));
    a.push(Buffer.from('x{pod="a",n="2"} 2\n'));
    b.push(Buffer.from('y{pod="b",n="2"} 2\n# TYPE x counter\nx{pod="b"} 3\n'));
    expect(merged(merge)).toBe(
      '# TYPE x counter\nx{pod="a"} 1\nx{pod="a",n="2"} 2\nx{pod="b"} 3\n' +
        '# TYPE y counter\ny{pod="b"} 1\ny{pod="b",n="2"} 2\n',
    );
  });

  test('an unfinished line, comments and empty families leave no trace', () => {
    const merge = new FamilyMerge();
    const source = merge.source();
    source.push(Buffer.from('# TYPE empty counter\n# a comment\n# TYPE x counter\nx 1\n# EOF\nx{cut="'));
    expect(merged(merge)).toBe('# TYPE x counter\nx 1\n');
  });

  test('stops at its bound, and says so', () => {
    const merge = new FamilyMerge({ bytesMax: 100 });
    const [a, b] = [merge.source(), merge.source()];
    a.push(Buffer.from('# TYPE x counter\nx 1\n'));
    b.push(Buffer.alloc(90, 'y'));
    a.push(Buffer.from('x{n="2"} 2\n'));
    expect([a.isTruncated, b.isTruncated]).toEqual([false, true]);
    expect(merged(merge)).toBe('# TYPE x counter\nx 1\nx{n="2"} 2\n');
    expect(merge.bytes).toBe(32);
  });
});
