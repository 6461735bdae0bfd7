// Identities in certificates: DNS and URI subject alternative names (RFC 5280 section 4.2.1.6), compared as strings and
// never as patterns.

/**
 * DNS and URI names of Node's `subjectAltName` text, in order. Node separates entries by `, ` and writes a value that
 * could be mistaken for a separator as a JSON string.
 */
export function identitiesOf(subjectAltName: string | undefined): string[] {
  const identities: string[] = [];
  const entry = /(DNS|URI|[A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/g;
  for (const [, kind, raw] of (subjectAltName ?? '').matchAll(entry)) {
    if (kind !== 'DNS' && kind !== 'URI') continue;
    const value = raw!.startsWith('"') ? parseQuoted(raw!) : raw!;
    if (value !== null && value !== '') identities.push(kind === 'DNS' ? value.toLowerCase() : value);
  }
  return identities;
}

function parseQuoted(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'string' ? value : null;
  } catch {
    // Not what Node writes: no identity can be told from it.
    return null;
  }
}

/** Whether a peer with these identities is `expected`: a DNS name in any case, a SPIFFE URI exactly. */
export function hasIdentity(identities: readonly string[], expected: string): boolean {
  const wanted = expected.includes('://') ? expected : expected.toLowerCase();
  return identities.includes(wanted);
}
