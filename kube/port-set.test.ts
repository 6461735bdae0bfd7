import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatPortSet, hasPort, parsePortSet, unite } from './port-set.ts';

describe('lists of ports', () => {
  test.each([
    ['', []],
    ['80', [[80, 80]]],
    [
      ' 80 , 443 ,',
      [
        [80, 80],
        [443, 443],
      ],
    ],
    [
      '443,80,81-90',
      [
        [80, 90],
        [443, 443],
      ],
    ],
    ['1-65535', [[1, 65535]]],
    ['100-200,150-300,301', [[100, 301]]],
  ])('"%s"', (text, ports) => expect(parsePortSet(text)).toEqual({ ports, problems: [] }));

  test.each(['0', '65536', '90-80', '80;81', '-1', 'http', '8e3', '80-'])('"%s" is a problem that names it', (text) => {
    const { ports, problems } = parsePortSet(`22,${text}`);
    expect(ports).toEqual([[22, 22]]);
    expect(problems).toEqual([expect.stringContaining(`"${text}": expected`)]);
  });

  test('names are resolved where they may be', () => {
    const resolve = (name: string) => (name === 'db' ? [5432, 5433] : []);
    expect(parsePortSet('db,absent,80', resolve)).toEqual({
      ports: [
        [80, 80],
        [5432, 5433],
      ],
      problems: [],
    });
    expect(parsePortSet('D B', resolve).problems).toHaveLength(1);
  });

  test('membership and union', () => {
    const ports = unite(parsePortSet('80').ports, parsePortSet('79,100-110').ports);
    expect(formatPortSet(ports)).toBe('79-80,100-110');
    expect([78, 79, 80, 81, 99, 100, 110, 111].map((port) => hasPort(ports, port))).toEqual([
      false,
      true,
      true,
      false,
      false,
      true,
      true,
      false,
    ]);
  });

  test('a set holds exactly what was listed, and its text reads back', () => {
    const port = fc.integer({ min: 1, max: 65535 });
    fc.assert(
      fc.property(fc.array(fc.tuple(port, port)), port, (pairs, probe) => {
        const ranges = pairs.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
        const { ports } = parsePortSet(ranges.map(([from, to]) => `${from}-${to}`).join(','));
        expect(hasPort(ports, probe)).toBe(ranges.some(([from, to]) => from <= probe && probe <= to));
        expect(parsePortSet(formatPortSet(ports)).ports).toEqual(ports);
      }),
    );
  });
});
