// The static Huffman code of RFC 7541 section 5.2. Decoding walks a table of states by four bits at a time; encoding
// gathers code words in a 32-bit register.

import { HpackError } from './error.ts';
import { HUFFMAN_BITS, HUFFMAN_EOS } from './tables.ts';

/** Code words, right-aligned, made from the lengths: shorter first, then by symbol. */
const CODES = canonicalCodes(HUFFMAN_BITS);

const EMIT = 1;
const FAIL = 2;

/** For each state and nibble: next state << 16 | flags << 8 | octet. */
const { transitions: TRANSITIONS, accepting: ACCEPTING } = buildDecoder();

function canonicalCodes(bits: readonly number[]): Uint32Array {
  const order = bits.map((_, symbol) => symbol).sort((a, b) => bits[a]! - bits[b]! || a - b);
  const codes = new Uint32Array(bits.length);
  let code = 0;
  let length = bits[order[0]!]!;
  for (const symbol of order) {
    code = code * 2 ** (bits[symbol]! - length);
    length = bits[symbol]!;
    codes[symbol] = code++;
  }
  return codes;
}

interface Tree {
  /** Two children for each node: a node number, or -1 - symbol for a leaf. Node 0 is the root. */
  children: number[];
  /** Bits from the root, and whether all of them are ones: what padding may look like. */
  depth: number[];
  ones: boolean[];
}

function buildTree(): Tree {
  const tree: Tree = { children: [0, 0], depth: [0], ones: [true] };
  for (let symbol = 0; symbol < HUFFMAN_BITS.length; symbol++) {
    let node = 0;
    for (let bit = HUFFMAN_BITS[symbol]! - 1; bit > 0; bit--) {
      const slot = node * 2 + ((CODES[symbol]! >>> bit) & 1);
      if (tree.children[slot] === 0) {
        tree.children[slot] = tree.depth.length;
        tree.children.push(0, 0);
        tree.depth.push(tree.depth[node]! + 1);
        tree.ones.push(tree.ones[node]! && (slot & 1) === 1);
      }
      node = tree.children[slot]!;
    }
    tree.children[node * 2 + (CODES[symbol]! & 1)] = -1 - symbol;
  }
  return tree;
}

function buildDecoder(): { transitions: Uint32Array; accepting: Uint8Array } {
  const tree = buildTree();
  const transitions = new Uint32Array(tree.depth.length * 16);
  // Padding is fewer than eight bits, all ones (section 5.2): any other place to stop is an error.
  const accepting = Uint8Array.from(tree.depth, (depth, node) => (depth < 8 && tree.ones[node] ? 1 : 0));
  for (let node = 0; node < tree.depth.length; node++) {
    for (let nibble = 0; nibble < 16; nibble++) transitions[node * 16 + nibble] = step(tree, node, nibble);
  }
  return { transitions, accepting };
}

function step(tree: Tree, from: number, nibble: number): number {
  let node = from;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    const next = tree.children[node * 2 + ((nibble >>> bit) & 1)]!;
    if (next >= 0) {
      node = next;
      continue;
    }
    const symbol = -1 - next;
    if (symbol === HUFFMAN_EOS) return FAIL << 8;
    emitted = (EMIT << 8) | symbol;
    node = 0;
  }
  return (node << 16) | emitted;
}

let scratch = new Uint8Array(4096);
const latin1 = new TextDecoder('latin1');

/** Decodes `bytes[start..end)` to a latin1 string. Throws HpackError for EOS or bad padding. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string {
  // The shortest code has five bits.
  const most = Math.ceil(((end - start) * 8) / 5);
  if (most > scratch.length) scratch = new Uint8Array(most);
  let state = 0;
  let length = 0;
  for (let at = start; at < end; at++) {
    const octet = bytes[at]!;
    for (let shift = 4; shift >= 0; shift -= 4) {
      const move = TRANSITIONS[state * 16 + ((octet >>> shift) & 15)]!;
      const flags = (move >>> 8) & 0xff;
      if (flags & FAIL) throw new HpackError('Huffman string contains EOS');
      if (flags & EMIT) scratch[length++] = move & 0xff;
      state = move >>> 16;
    }
  }
  if (ACCEPTING[state] === 0) throw new HpackError('Huffman string has wrong padding');
  return asciiOrLatin1(scratch, length);
}

/** A TextDecoder labelled latin1 is windows-1252 (WHATWG Encoding), so octets above 0x7f go through char codes. */
export function asciiOrLatin1(bytes: Uint8Array, length: number, start = 0): string {
  const end = start + length;
  if (length <= 24) return String.fromCharCode.apply(null, bytes.subarray(start, end) as unknown as number[]);
  for (let at = start; at < end; at++) {
    if (bytes[at]! >= 0x80) return charCodes(bytes, start, end);
  }
  return latin1.decode(bytes.subarray(start, end));
}

function charCodes(bytes: Uint8Array, start: number, end: number): string {
  let text = '';
  for (let at = start; at < end; at += 4096) {
    text += String.fromCharCode.apply(null, bytes.subarray(at, Math.min(end, at + 4096)) as unknown as number[]);
  }
  return text;
}

/** Octets that `text` (latin1) takes in the Huffman code. */
export function huffmanBytes(text: string): number {
  let bits = 0;
  for (let at = 0; at < text.length; at++) bits += HUFFMAN_BITS[text.charCodeAt(at) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (latin1) at `at`, padded with ones, and returns the position behind it. */
export function encodeHuffman(out: Uint8Array, at: number, text: string): number {
  let register = 0;
  let held = 0;
  for (let index = 0; index < text.length; index++) {
    const symbol = text.charCodeAt(index) & 0xff;
    let left = HUFFMAN_BITS[symbol]!;
    const code = CODES[symbol]!;
    while (left > 0) {
      const take = Math.min(8 - held, left);
      register = (register << take) | ((code >>> (left - take)) & ((1 << take) - 1));
      held += take;
      left -= take;
      if (held === 8) {
        out[at++] = register;
        register = 0;
        held = 0;
      }
    }
  }
  if (held > 0) out[at++] = (register << (8 - held)) | ((1 << (8 - held)) - 1);
  return at;
}
