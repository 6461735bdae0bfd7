import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatProblem, parseManifest } from './manifest.ts';

const names = (file: string, text: string) =>
  parseManifest(file, text).objects.map(({ object, document }) => `${document} ${object.kind} ${object.metadata.name}`);
const problems = (file: string, text: string) => parseManifest(file, text).problems.map(formatProblem);

const account = (name: string) => `apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: ${name}}\n`;

describe('files', () => {
  test('with several documents, empty ones among them', () =>
    expect(names('a.yaml', `---\n# nothing\n---\n${account('a')}---\n${account('b')}---\n`)).toEqual([
      '2 ServiceAccount a',
      '3 ServiceAccount b',
    ]));

  test('in JSON', () =>
    expect(names('a.json', '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}')).toEqual([
      '1 Namespace a',
    ]));

  test('with a List', () => {
    const items = ['a', 'b'].map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }));
    expect(names('a.json', JSON.stringify({ apiVersion: 'v1', kind: 'List', items }))).toEqual([
      '1 Namespace a',
      '1 Namespace b',
    ]);
  });

  test('that are empty', () =>
    expect(parseManifest('a.yaml', '')).toEqual({ objects: [], problems: [], isSound: true }));
});

describe('problems', () => {
  test('name file, document, object, field and remedy; what is sound counts', () => {
    const text = `${account('good')}---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 70000}]}
`;
    expect(names('web.yaml', text)).toEqual(['1 ServiceAccount good']);
    expect(problems('web.yaml', text)).toEqual([
      'web.yaml document 2, Service shop/web, spec.ports[0].port: read "70000": expected a port from 1 to 65535',
    ]);
    expect(parseManifest('web.yaml', text).isSound).toBe(false);
  });

  test('of YAML name the line', () =>
    expect(problems('a.yaml', `${account('a')}---\nkind: [\n`)[0]).toMatch(
      /^a\.yaml document 2: parse YAML at line \d+, column \d+: /,
    ));

  test('of JSON', () => expect(problems('a.json', '{"kind":')[0]).toMatch(/^a\.json document 1: parse JSON: /));

  test('of aliases that multiply', () => {
    let text = 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n';
    for (let level = 1; level < 9; level++) text += `a${level}: &a${level} [${`*a${level - 1}, `.repeat(10)}]\n`;
    expect(problems('bomb.yaml', text)[0]).toContain('read YAML: ');
  });

  test('foreign kinds are warnings and do not make the file bad', () => {
    const manifest = parseManifest('a.yaml', 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n');
    expect(manifest.isSound).toBe(true);
    expect(manifest.problems).toMatchObject([{ severity: 'warning', field: 'kind' }]);
  });
});

test('whatever the text, reading it ends in objects and problems', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json(), fc.string({ unit: 'grapheme' })), (text) => {
      for (const file of ['a.yaml', 'a.json']) {
        const { objects, problems, isSound } = parseManifest(file, text);
        expect(isSound || problems.length > 0).toBe(true);
        expect(objects).toEqual([]);
      }
    }),
  );
});
