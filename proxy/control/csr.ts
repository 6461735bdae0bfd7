// A certificate signing request (PKCS #10, RFC 2986) for a workload: an empty subject and exactly one DNS name as
// subject alternative name, which is what the identity service demands.

import { createPublicKey, type KeyObject, sign } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';
import { bitString, context, implicit, objectIdentifier, octetString, sequence, set, smallInteger } from './der.ts';

const OID = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  extensionRequest: '1.2.840.113549.1.9.14',
  subjectAltName: '2.5.29.17',
} as const;
/** GeneralName dNSName (RFC 5280 section 4.2.1.6). */
const DNS_NAME = 2;
const ATTRIBUTES = 0;
const VERSION_1 = 0;
/** RFC 1035 section 2.3.4. */
const DNS_NAME_CHARS_MAX = 253;

/**
 * The request for `dnsName` in DER, signed by `privateKey` (EC on P-256). Throws `invalid-identity` where the name
 * cannot stand in a certificate.
 */
export function certificateRequest(dnsName: string, privateKey: KeyObject): Buffer {
  if (!/^[\x21-\x7e]+$/.test(dnsName) || dnsName.length > DNS_NAME_CHARS_MAX) {
    throw new HeddleError(
      'invalid-identity',
      `request a certificate for "${dnsName}": expected a DNS name of at most ${DNS_NAME_CHARS_MAX} characters`,
    );
  }
  const names = sequence(implicit(DNS_NAME, Buffer.from(dnsName, 'latin1')));
  const extensions = sequence(sequence(objectIdentifier(OID.subjectAltName), octetString(names)));
  const attribute = sequence(objectIdentifier(OID.extensionRequest), set(extensions));
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  const info = sequence(smallInteger(VERSION_1), sequence(), publicKey, context(ATTRIBUTES, attribute));
  const signature = sign('sha256', info, { key: privateKey, dsaEncoding: 'der' });
  return sequence(info, sequence(objectIdentifier(OID.ecdsaWithSha256)), bitString(signature));
}
