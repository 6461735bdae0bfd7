// Certificates for tests, made by the openssl command: independent of the product's own certificate code.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export interface TestCertificate {
  certificatePem: string;
  privateKeyPem: string;
}

/** Makes a self-signed ECDSA P-256 authority. */
export function makeAuthority(name = 'test anchor'): TestCertificate {
  return inTemporaryDirectory((directory) => {
    openssl(directory, [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', 'key.pem', '-out', 'certificate.pem', '-days', '2', '-subj', `/CN=${name}`],
      ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ]);
    return read(directory);
  });
}

/** Makes a leaf below `authority` with the given names, such as `DNS:a.example` or `URI:spiffe://td/x`. */
export function makeLeaf(authority: TestCertificate, names: readonly string[]): TestCertificate {
  return inTemporaryDirectory((directory) => {
    writeFileSync(path.join(directory, 'ca.pem'), authority.certificatePem);
    writeFileSync(path.join(directory, 'ca-key.pem'), authority.privateKeyPem, { mode: 0o600 });
    openssl(directory, [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', 'key.pem', '-out', 'certificate.pem', '-days', '1', '-subj', '/'],
      ...['-CA', 'ca.pem', '-CAkey', 'ca-key.pem', '-addext', 'basicConstraints=critical,CA:FALSE'],
      ...['-addext', `subjectAltName=${names.join(',')}`, '-addext', 'extendedKeyUsage=serverAuth,clientAuth'],
    ]);
    return read(directory);
  });
}

/** Makes a leaf that was valid until yesterday. The command takes dates in its `ca` mode only. */
export function makeExpiredLeaf(authority: TestCertificate, names: readonly string[]): TestCertificate {
  return inTemporaryDirectory((directory) => {
    const config = [
      ...['[ca]', 'default_ca=main', '[main]', 'database=index.txt', 'new_certs_dir=.', 'rand_serial=yes'],
      ...['default_md=sha256', 'policy=any', 'x509_extensions=leaf', '[any]', 'commonName=optional', '[leaf]'],
      ...['basicConstraints=critical,CA:FALSE', 'extendedKeyUsage=serverAuth,clientAuth'],
      `subjectAltName=${names.join(',')}`,
    ];
    writeFileSync(path.join(directory, 'ca.cnf'), config.join('\n'));
    writeFileSync(path.join(directory, 'index.txt'), '');
    writeFileSync(path.join(directory, 'ca.pem'), authority.certificatePem);
    writeFileSync(path.join(directory, 'ca-key.pem'), authority.privateKeyPem, { mode: 0o600 });
    openssl(directory, [
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=expired'],
    ]);
    openssl(directory, [
      ...['ca', '-batch', '-notext', '-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca-key.pem'],
      ...['-startdate', opensslDate(-2), '-enddate', opensslDate(-1), '-in', 'request.pem', '-out', 'certificate.pem'],
    ]);
    return read(directory);
  });
}

/** So many days from now, YYYYMMDDHHMMSSZ. */
function opensslDate(days: number): string {
  const date = new Date(Date.now() + days * 86_400_000).toISOString();
  return `${date.replace(/[-:T]/g, '').slice(0, 14)}Z`;
}

function openssl(directory: string, args: string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'], timeout: 20_000 });
}

function read(directory: string): TestCertificate {
  return {
    certificatePem: readFileSync(path.join(directory, 'certificate.pem'), 'utf8'),
    privateKeyPem: readFileSync(path.join(directory, 'key.pem'), 'utf8'),
  };
}

function inTemporaryDirectory<T>(use: (directory: string) => T): T {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-certificates-'));
  try {
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
