// The few DER structures (X.690) that a certificate signing request needs. A library for this costs a worker 10 MiB.

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OBJECT_IDENTIFIER = 0x06;
const SEQUENCE = 0x30;
const SET = 0x31;

/** Tag, length and content (X.690 sections 8.1.3.4 and 8.1.3.5). */
export function element(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content]);
  const length: number[] = [];
  for (let rest = content.length; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length, ...length]), content]);
}

export const sequence = (...contents: readonly Uint8Array[]): Buffer => element(SEQUENCE, ...contents);
export const set = (...contents: readonly Uint8Array[]): Buffer => element(SET, ...contents);
export const octetString = (content: Uint8Array): Buffer => element(OCTET_STRING, content);

/** A bit string of whole bytes. */
export const bitString = (content: Uint8Array): Buffer => element(BIT_STRING, Buffer.from([0]), content);

/** A number from 0 to 127. */
export const smallInteger = (value: number): Buffer => element(INTEGER, Buffer.from([value]));

/** `1.2.840.10045.4.3.2` (X.690 section 8.19). */
export function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return element(OBJECT_IDENTIFIER, Buffer.from(bytes));
}

/** A context-specific constructed element: `[number]`. */
export const context = (number: number, ...contents: readonly Uint8Array[]): Buffer =>
  element(0xa0 | number, ...contents);

/** A context-specific primitive element: `[number] IMPLICIT`. */
export const implicit = (number: number, content: Uint8Array): Buffer => element(0x80 | number, content);
