// A corpus of lists as network plugins write them (testdata/), and generated ones.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  CONFIG_BYTES_MAX,
  holdsPlugin,
  insertPlugin,
  parseConfig,
  pluginSection,
  removePlugin,
  renderDropIn,
  wrapSingle,
} from './conflist.ts';
import { elementSpans, memberSpans } from './json-spans.ts';

const testdata = path.join(import.meta.dirname, 'testdata');
const read = (name: string): Uint8Array => readFileSync(path.join(testdata, name));
const lists = readdirSync(testdata).filter((name) => name.endsWith('.conflist'));
const section = pluginSection({ runDir: '/run/heddle', controlPlaneNamespace: 'mesh' });
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (data: Uint8Array): string => new TextDecoder().decode(data);

function list(plugins: string, head = '"cniVersion":"1.0.0","name":"n"'): Uint8Array {
  return bytes(`{${head},"plugins":[${plugins}]}`);
}

describe.each(lists)('%s', (name) => {
  const before = read(name);
  const after = insertPlugin(before, section);

  test('our plugin is the last, all others are as they were', () => {
    const [old, now] = [JSON.parse(text(before)), JSON.parse(text(after))];
    expect(now).toEqual({ ...old, plugins: [...old.plugins, section] });
    expect(holdsPlugin(after, section)).toBe(true);
    expect(holdsPlugin(before, section)).toBe(false);
  });

  test('every foreign byte stays, in order', () => {
    // One insertion: what stands before it and behind it is the file as it was.
    let same = 0;
    while (after[same] === before[same]) same++;
    const tail = before.length - same;
    expect(text(after.subarray(after.length - tail))).toBe(text(before.subarray(same)));
  });

  test('inserting again changes nothing, removing leaves no trace', () => {
    expect(insertPlugin(after, section)).toBe(after);
    expect(text(removePlugin(after))).toBe(text(before));
    expect(removePlugin(before)).toBe(before);
  });

  test('another section replaces ours where it stands', () => {
    const other = pluginSection({ runDir: '/run/other' });
    const replaced = insertPlugin(after, other);
    expect(JSON.parse(text(replaced)).plugins.at(-1)).toEqual(other);
    expect(text(removePlugin(replaced))).toBe(text(before));
  });
});

test('our element follows the style of its neighbours', () => {
  expect(text(insertPlugin(read('05-cilium.conflist'), section))).toMatch(/"\},\{"type":"heddle-cni".*\}\]\}$/);
  expect(text(insertPlugin(read('10-kindnet.conflist'), pluginSection()))).toContain(
    '\n\t{\n\t\t"type": "heddle-cni",\n\t\t"capabilities": {\n\t\t\t"io.kubernetes.cri.pod-annotations": true\n\t\t}\n\t}\n\t]',
  );
  expect(text(insertPlugin(read('10-flannel.conflist'), pluginSection()))).toContain(
    '    },\n    {\n      "type": "heddle-cni",\n      "capabilities": {\n',
  );
});

test('a plugin that came behind ours stays behind it', () => {
  const theirs = list(
    '{"type":"a"},{"type":"heddle-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true}},{"type":"z"}',
  );
  expect(insertPlugin(theirs, pluginSection())).toBe(theirs);
  expect(parseConfig(insertPlugin(theirs, section), 'list').types).toEqual(['a', 'heddle-cni', 'z']);
  expect(text(removePlugin(theirs))).toBe(text(list('{"type":"a"},{"type":"z"}')));
});

test('the order of keys in our section does not matter', () => {
  const theirs = list('{"type":"a"},{"capabilities":{"io.kubernetes.cri.pod-annotations":true},"type":"heddle-cni"}');
  expect(insertPlugin(theirs, pluginSection())).toBe(theirs);
});

test('ours twice becomes ours once', () => {
  const twice = list('{"type":"a"}, {"type":"heddle-cni"} ,{"type":"b"},{"type":"heddle-cni"}');
  expect(parseConfig(insertPlugin(twice, section), 'list').types).toEqual(['a', 'heddle-cni', 'b']);
  expect(text(removePlugin(twice))).toBe(text(list('{"type":"a"} ,{"type":"b"}')));
});

test('a single configuration becomes a list with its bytes in it', () => {
  const before = read('10-mynet.conf');
  const after = wrapSingle(before, section);
  const parsed = JSON.parse(text(after));
  expect(parsed).toEqual({
    cniVersion: '0.4.0',
    name: 'mynet',
    plugins: [JSON.parse(text(before)), section],
  });
  expect(text(after)).toContain(text(before).trim());
});

test('a drop-in is our section alone', () => {
  expect(JSON.parse(text(renderDropIn(section)))).toEqual(section);
});

describe('refused with the reason', () => {
  const half = read('10-calico.conflist').subarray(0, 300);
  test.each([
    ['half written', half, /the text is not JSON/],
    ['empty', bytes(''), /the text is not JSON/],
    ['a byte order mark', bytes(`\uFEFF${text(list('{"type":"a"}'))}`), /the text is not JSON/],
    ['no UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), /the text is not UTF-8/],
    ['no object', bytes('[]'), /expected a JSON object/],
    ['no name', list('{"type":"a"}', '"cniVersion":"1.0.0"'), /field "name"/],
    ['plugins no list', bytes('{"cniVersion":"1.0.0","name":"n","plugins":{}}'), /field "plugins": expected a list/],
    ['no plugin', list(''), /holds no plugin/],
    ['plugin without a type', list('{"type":"a"},{"kind":"b"}'), /field "plugins.1.type"/],
    ['plugin null', list('null'), /field "plugins.0.type"/],
    ['ours first', list('{"type":"heddle-cni"},{"type":"a"}'), /is the first of its list/],
    ['no version', list('{"type":"a"}', '"name":"n"'), /cniVersion "": expected one of/],
    ['a version too old', list('{"type":"a"}', '"cniVersion":"0.2.0","name":"n"'), /cniVersion "0.2.0"/],
    [
      'a version too new',
      list('{"type":"a"}', '"cniVersion":"1.0.0","cniVersions":["1.1.0","1.2.0"],"name":"n"'),
      /"1.2.0"/,
    ],
    [
      'a strange switch',
      list('{"type":"a"}', '"cniVersion":"1.0.0","name":"n","loadOnlyInlinedPlugins":1'),
      /loadOnlyInlined/,
    ],
    ['too long', new Uint8Array(CONFIG_BYTES_MAX + 1), /expected at most 2097152/],
  ])('%s', (_name, input, expected) => {
    expect(() => insertPlugin(input, section)).toThrow(expected);
  });

  test('a list of nothing but ours is not emptied', () => {
    expect(() => removePlugin(list('{"type":"heddle-cni"}'))).toThrow(/an empty list is no network/);
  });
  test('a single configuration without a type', () => {
    expect(() => wrapSingle(bytes('{"cniVersion":"1.0.0","name":"n","plugins":[]}'), section)).toThrow(/field "type"/);
  });
});

test('versions offered beside a version that may be absent', () => {
  const offered = list('{"type":"a"}', '"cniVersions":["0.4.0","1.1.0"],"name":"n"');
  expect(parseConfig(insertPlugin(offered, section), 'list').types).toEqual(['a', 'heddle-cni']);
});

/** JSON text with white space wherever the grammar allows it. */
const space = fc.stringMatching(/^[ \t\r\n]{0,3}$/);
function jsonText(value: unknown, pad: () => string): string {
  if (Array.isArray(value)) {
    return `[${pad()}${value.map((part) => jsonText(part, pad)).join(`${pad()},${pad()}`)}${pad()}]`;
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(
      ([key, part]) => `${JSON.stringify(key)}${pad()}:${pad()}${jsonText(part, pad)}`,
    );
    return `{${pad()}${members.join(`${pad()},${pad()}`)}${pad()}}`;
  }
  return JSON.stringify(value);
}

const generated = fc
  .record({
    plugins: fc.array(fc.record({ type: fc.stringMatching(/^[a-z]{1,8}$/), more: fc.jsonValue() }), {
      minLength: 1,
      maxLength: 5,
    }),
    more: fc.jsonValue(),
    pads: fc.array(space, { minLength: 7, maxLength: 7 }),
  })
  .map(({ plugins, more, pads }) => {
    let index = 0;
    const pad = (): string => pads[index++ % pads.length]!;
    return `${pad()}${jsonText({ more, cniVersion: '1.0.0', name: 'n', plugins, end: more }, pad)}${pad()}`;
  });

test('whatever the list, inserting and removing gives back its bytes', () => {
  fc.assert(
    fc.property(generated, (input) => {
      const after = insertPlugin(bytes(input), section);
      const [old, now] = [JSON.parse(input), JSON.parse(text(after))];
      expect(now.plugins).toEqual([...old.plugins, section]);
      expect({ ...now, plugins: null }).toEqual({ ...old, plugins: null });
      expect(text(removePlugin(after))).toBe(input);
    }),
    { numRuns: 500 },
  );
});

test('whatever the bytes, the answer is a list or a clear refusal', () => {
  fc.assert(
    fc.property(fc.tuple(generated, fc.nat(), fc.nat(255)), ([input, at, byte]) => {
      const data = bytes(input);
      data[at % data.length] = byte;
      let after: Uint8Array;
      try {
        after = insertPlugin(data, section);
      } catch (error) {
        expect(error).toMatchObject({ name: 'HeddleError' });
        return;
      }
      expect(parseConfig(after, 'list').types).toContain('heddle-cni');
    }),
    { numRuns: 1_000 },
  );
});

test('spans name the last of repeated keys, as parsers do', () => {
  const repeated = '{"a":[1], "a" : [ "x]" , {"b":"}"},null ] }';
  const at = memberSpans(repeated).get('a')!;
  expect(elementSpans(repeated, at.start).map(({ start, end }) => repeated.slice(start, end))).toEqual([
    '"x]"',
    '{"b":"}"}',
    'null',
  ]);
  expect(elementSpans('[ ]', 0)).toEqual([]);
});
