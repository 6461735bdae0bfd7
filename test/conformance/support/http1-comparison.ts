// What a literate case says that a worker must do, in the words of an origin behind it; and how readings are compared.

import type { LiterateCase } from '#proxy/io/testing/literate-http1.ts';
import { unescapeBytes } from '#proxy/io/testing/literate-http1.ts';
import { type Outcome, SYSTEM_NAMES, type SystemName } from './http1-systems.ts';
import type { SeenRequest } from './recording-origin.ts';

/** A request as two readers must agree on it: method, authority with target, body. */
export interface WholeRequest {
  method: string;
  target: string;
  body: string;
}

/** What a request's case says. */
export interface Expected {
  /** Requests that are read to their end, and so must reach an origin. */
  whole: WholeRequest[];
  /** What is refused behind them; null when nothing is. */
  refusal: { status: number; code: string } | null;
  /** It is refused before its head was read, so that not a byte of it may be sent on. */
  isUnread: boolean;
  /** The client is to be told, which it is unless it left before the end of its request. */
  isAnswered: boolean;
}

export function expectedOf(one: LiterateCase): Expected {
  const whole: WholeRequest[] = [];
  let current: WholeRequest | null = null;
  let refusal: Expected['refusal'] = null;
  for (const line of one.reading) {
    const head = /^(\S+) https?:\/\/(\S*) (?:absolute )?1\.[01] body=/.exec(line);
    const data = /^data "(.*)"$/.exec(line);
    const error = /^error (\d+) (\S+)$/.exec(line);
    if (head) current = { method: plain(head[1]!), target: plain(head[2]!), body: '' };
    else if (data) current!.body += plain(data[1]!);
    else if (error) refusal = { status: Number(error[1]), code: error[2]! };
    else if (/^end\b/.test(line)) {
      whole.push(current!);
      current = null;
      // A connection that does not live on takes no further requests, though a codec would.
      if (line === 'end last') break;
    }
  }
  const isAnswered = refusal !== null && !/-incomplete$/.test(refusal.code);
  return { whole, refusal, isUnread: refusal !== null && current === null, isAnswered };
}

function plain(text: string): string {
  return unescapeBytes(text).toString('latin1');
}

/** A request at an origin, in the same words. The target may have been sent on in either form. */
export function wholeRequest({ method, target, host, body }: SeenRequest): WholeRequest {
  const absolute = /^https?:\/\/(.*)$/i.exec(target);
  if (absolute) {
    // For OPTIONS no path means `*` (RFC 9112 section 3.2.4).
    const isAsterisk = method === 'OPTIONS' && !absolute[1]!.includes('/');
    return { method, target: `${absolute[1]}${isAsterisk ? '*' : ''}`, body };
  }
  return { method, target: method === 'CONNECT' ? target : `${host}${target}`, body };
}

/** Bytes were taken for a request that both others refuse: somebody could be told two things at a time. */
export function isLaxerThanBoth(outcomes: Record<SystemName, Outcome>): boolean {
  const others = Math.max(outcomes.nginx.seen.length, outcomes.haproxy.seen.length);
  return outcomes.heddle.seen.length > others;
}

/** Where two that accept a request take it for different ones: its method or its body. */
export function differsFrom(name: SystemName, outcomes: Record<SystemName, Outcome>): boolean {
  return outcomes.heddle.seen.some((ours, index) => {
    const theirs = outcomes[name].seen[index];
    return theirs !== undefined && (theirs.method !== ours.method || theirs.body !== ours.body);
  });
}

/** One line: the bytes, then what each made of them. */
export function comparisonLine(place: string, bytes: Buffer, outcomes: Record<SystemName, Outcome>): string {
  const text = shorten(JSON.stringify(bytes.toString('latin1')).slice(1, -1), 120);
  const cells = SYSTEM_NAMES.map((name) => `${name}: ${describe(outcomes[name])}`);
  return [place, text, ...cells].join(' | ');
}

function describe({ seen, statuses, isClosed }: Outcome): string {
  const requests = seen.map(({ method, target, body }) => {
    const words = [shorten(method, 20), shorten(JSON.stringify(target).slice(1, -1), 40)];
    return [...words, ...(body === '' ? [] : [`+${body.length}`])].join(' ');
  });
  const answers = statuses.length === 0 ? 'no answer' : statuses.join(' ');
  return `${requests.length === 0 ? 'nothing' : requests.join(', ')} -> ${answers}${isClosed ? '' : ', left open'}`;
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}\u2026`;
}
