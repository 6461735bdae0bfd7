// Where the parts of a JSON text lie, so that one element of a list can be put in or taken out while every other byte
// stays as its author wrote it. Only for text that JSON.parse has accepted. RFC 8259.

/** Half-open range of string indices. */
export interface Span {
  start: number;
  end: number;
}

/** Spans of the values of the object that starts at `at`, by key; of a repeated key the last counts, as for parsers. */
export function memberSpans(text: string, at = 0): Map<string, Span> {
  const members = new Map<string, Span>();
  let index = skipSpace(text, expect(text, skipSpace(text, at), '{'));
  while (text[index] !== '}') {
    const keyEnd = skipValue(text, index);
    const key = JSON.parse(text.slice(index, keyEnd)) as string;
    const start = skipSpace(text, expect(text, skipSpace(text, keyEnd), ':'));
    const end = skipValue(text, start);
    members.set(key, { start, end });
    index = skipSpace(text, end);
    if (text[index] === ',') index = skipSpace(text, index + 1);
  }
  return members;
}

/** Spans of the elements of the array that starts at `at`. */
export function elementSpans(text: string, at: number): Span[] {
  const elements: Span[] = [];
  let index = skipSpace(text, expect(text, at, '['));
  while (text[index] !== ']') {
    const end = skipValue(text, index);
    elements.push({ start: index, end });
    index = skipSpace(text, end);
    if (text[index] === ',') index = skipSpace(text, index + 1);
  }
  return elements;
}

/** `text` with the span replaced. */
export function splice(text: string, span: Span, replacement: string): string {
  return text.slice(0, span.start) + replacement + text.slice(span.end);
}

function expect(text: string, index: number, character: string): number {
  if (text[index] !== character) throw new SyntaxError(`expected "${character}" at ${index}`);
  return index + 1;
}

function skipSpace(text: string, from: number): number {
  let index = from;
  while (text[index] === ' ' || text[index] === '\n' || text[index] === '\t' || text[index] === '\r') index++;
  return index;
}

/** The index behind the value that starts at `from`. */
function skipValue(text: string, from: number): number {
  const first = text[from];
  if (first === '"') return skipString(text, from);
  if (first !== '{' && first !== '[') return skipScalar(text, from);
  let depth = 0;
  let index = from;
  do {
    const character = text[index];
    if (character === undefined) throw new SyntaxError(`unclosed "${first}" at ${from}`);
    if (character === '"') {
      index = skipString(text, index);
      continue;
    }
    if (character === '{' || character === '[') depth++;
    if (character === '}' || character === ']') depth--;
    index++;
  } while (depth > 0);
  return index;
}

function skipString(text: string, from: number): number {
  let index = from + 1;
  while (text[index] !== '"') {
    if (text[index] === undefined) throw new SyntaxError(`unclosed string at ${from}`);
    index += text[index] === '\\' ? 2 : 1;
  }
  return index + 1;
}

function skipScalar(text: string, from: number): number {
  let index = from;
  while (index < text.length && !',]} \n\t\r'.includes(text[index]!)) index++;
  if (index === from) throw new SyntaxError(`expected a value at ${from}`);
  return index;
}
