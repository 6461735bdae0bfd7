// Bytes of one request to a checked CniRequest. Everything a plugin of another version may send in addition is left
// out; what is missing or wrong is named by its field. Contract: api/cni-message.ts.

import { isIP } from 'node:net';
import { z } from 'zod';
import {
  CNI_MESSAGE_BYTES_MAX,
  CNI_MESSAGE_VERSION,
  CniCode,
  type CniReply,
  type CniRequest,
} from '#api/cni-message.ts';
import { cniFailed } from './handler.ts';

export const FRAME_HEADER_BYTES = 4;
/** Addresses of one pod: two families, a few networks. */
const IPS_MAX = 32;
const ATTACHMENTS_MAX = 16_384;
const DEADLINE_MS_MAX = 60_000;

/** As the specification's alphabet, with the length that plugin and agent allow: IDs become file names. */
const containerId = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}$/, 'expected a CNI container ID');
const attachment = z.object({ containerId: z.string().max(1024), ifName: z.string().max(64) });

const common = z.object({
  v: z.literal(CNI_MESSAGE_VERSION),
  ifName: z.string().max(64),
  network: z.string().max(1024),
  netnsPath: z.string().max(4096),
  netnsInode: z.number().int().nonnegative(),
  pod: z.object({ namespace: z.string().max(253), name: z.string().max(253), uid: z.string().max(128) }),
  annotations: z.record(z.string(), z.string()).nullable(),
  ips: z.array(z.string().refine((text) => isIP(text) !== 0, 'expected an IP address')).max(IPS_MAX),
  deadlineMs: z.number().int().min(1).max(DEADLINE_MS_MAX),
  pluginVersion: z.string().max(64),
});

const schema = z.discriminatedUnion('op', [
  common.extend({ op: z.enum(['ADD', 'CHECK']), containerId, netnsInode: z.number().int().positive() }),
  common.extend({ op: z.literal('DEL'), containerId }),
  common.extend({
    op: z.literal('GC'),
    containerId: z.string().max(0),
    validAttachments: z.array(attachment).max(ATTACHMENTS_MAX),
  }),
  common.extend({ op: z.literal('STATUS'), containerId: z.string().max(0) }),
]);

/** The length that a frame's first four bytes announce, or the refusal. */
export function frameLength(head: Buffer): number | CniReply {
  const length = head.readUInt32BE(0);
  if (length > 0 && length <= CNI_MESSAGE_BYTES_MAX) return length;
  const message = `request of ${length} bytes: expected 1 to ${CNI_MESSAGE_BYTES_MAX}`;
  return cniFailed(CniCode.decodeFailure, message);
}

/** The request in the body of a frame, or the refusal to answer with. */
export function parseRequest(body: Buffer): { request: CniRequest } | { refusal: CniReply } {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    return { refusal: cniFailed(CniCode.decodeFailure, `request is not JSON: ${cause}`) };
  }
  const version = (value as { v?: unknown } | null)?.v;
  if (typeof version === 'number' && version !== CNI_MESSAGE_VERSION) {
    const message = `request of version "${version}": expected ${CNI_MESSAGE_VERSION}: install the plugin of this agent`;
    return { refusal: cniFailed(CniCode.incompatibleVersion, message) };
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return { request: parsed.data as CniRequest };
  const faults = parsed.error.issues.map((issue) => `field "${issue.path.join('.') || '(whole)'}": ${issue.message}`);
  return { refusal: cniFailed(CniCode.decodeFailure, `request is invalid: ${faults.slice(0, 8).join('; ')}`) };
}

/** A frame of the reply; an empty one for `null` ("accepted"). A reply too long loses its details, then its warnings. */
export function encodeReply(reply: CniReply | null): Buffer {
  if (reply === null) return Buffer.alloc(FRAME_HEADER_BYTES);
  let body = Buffer.from(JSON.stringify(reply));
  if (body.length > CNI_MESSAGE_BYTES_MAX) {
    body = Buffer.from(JSON.stringify({ ...reply, message: reply.message.slice(0, 4096), details: '', warnings: [] }));
  }
  const head = Buffer.alloc(FRAME_HEADER_BYTES);
  head.writeUInt32BE(body.length, 0);
  return Buffer.concat([head, body]);
}
