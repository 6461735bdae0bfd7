// Certificates for tests, made by the openssl command: an independent writer of what the code under test reads.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TlsCertificate } from '../tls.ts';

export interface LeafOptions {
  /** As in openssl's configuration: `DNS:name,URI:spiffe://…`. */
  subjectAltName: string;
  /** Days from now; negative: expired. */
  days?: number;
  /** An intermediate between anchor and leaf. */
  withIntermediate?: boolean;
  extendedKeyUsage?: string;
}

/** One trust anchor and what it signs. */
export class TestAuthority {
  readonly anchorPem: string;
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'heddle-certificates-'));

  constructor(name = 'test anchor') {
    this.#openssl(`ecparam -name prime256v1 -genkey -noout -out anchor.key`);
    const extension = '-addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign';
    this.#openssl(`req -x509 -new -key anchor.key -days 30 -out anchor.pem ${extension} -subj`, `/CN=${name}`);
    this.anchorPem = this.#read('anchor.pem');
  }

  leaf(options: LeafOptions): TlsCertificate {
    const { days = 1, withIntermediate = false, subjectAltName, extendedKeyUsage } = options;
    let issuer = 'anchor';
    if (withIntermediate) {
      this.#sign('issuer', 'anchor', 7, ['basicConstraints=critical,CA:true', 'keyUsage=critical,keyCertSign']);
      issuer = 'issuer';
    }
    const usage = extendedKeyUsage ?? 'serverAuth,clientAuth';
    this.#sign('leaf', issuer, days, [`subjectAltName=${subjectAltName}`, `extendedKeyUsage=${usage}`]);
    this.#openssl('pkcs8 -topk8 -nocrypt -in leaf.key -out leaf.p8');
    const chain = this.#read('leaf.pem') + (withIntermediate ? this.#read('issuer.pem') : '');
    return { keyPem: this.#read('leaf.p8'), chainPem: chain };
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #sign(name: string, issuer: string, days: number, extensions: string[]): void {
    this.#openssl(`ecparam -name prime256v1 -genkey -noout -out ${name}.key`);
    this.#openssl(`req -new -key ${name}.key -out ${name}.csr -subj`, `/CN=${name}`);
    const from = openSslDate(days < 0 ? 2 * days : -1);
    const to = openSslDate(days);
    writeFileSync(path.join(this.#directory, 'index.txt'), '');
    this.#certify(name, issuer, from, to, extensions);
  }

  /** `openssl ca` takes dates in every version; others take only days from now. */
  #certify(name: string, issuer: string, from: string, to: string, extensions: string[]): void {
    const config = [
      '[ca]',
      'default_ca=main',
      '[main]',
      'database=index.txt',
      'new_certs_dir=.',
      'rand_serial=yes',
      'default_md=sha256',
      'policy=any',
      'unique_subject=no',
      'x509_extensions=ext',
      '[any]',
      'commonName=supplied',
      '[ext]',
      ...extensions,
    ];
    writeFileSync(path.join(this.#directory, 'ca.cnf'), config.join('\n'));
    const dates = `-startdate ${from} -enddate ${to}`;
    const signer = `-cert ${issuer}.pem -keyfile ${issuer}.key`;
    this.#openssl(`ca -batch -notext -config ca.cnf ${signer} ${dates} -in ${name}.csr -out ${name}.pem`);
  }

  #openssl(words: string, ...more: string[]): void {
    execFileSync('openssl', [...words.split(' '), ...more], { cwd: this.#directory, stdio: 'pipe' });
  }

  #read(name: string): string {
    return readFileSync(path.join(this.#directory, name), 'utf8');
  }
}

/** YYYYMMDDHHMMSSZ, so many days from now. */
function openSslDate(days: number): string {
  const date = new Date(Date.now() + days * 86_400_000);
  return `${date.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
}
