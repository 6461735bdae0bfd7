// Certificates of the wrong kinds beside a good one, as NAME.pem and NAME.key in a directory: what a client of the mesh
// could present and a worker must refuse. Most are made by the openssl command, independent of the product's own code.

import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Issuer } from '../../worker/support/agent.ts';
import { API } from '../../worker/support/config.ts';
import { peerCertificate } from '../../worker/support/mesh.ts';

const DAY_MS = 24 * 3_600_000;
const LEAF = [`subjectAltName=DNS:${API}`, 'basicConstraints=critical,CA:FALSE'];
const SIGNING = 'keyUsage=critical,digitalSignature';
const BOTH = 'extendedKeyUsage=serverAuth,clientAuth';
const CA = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'];

interface SignOptions {
  extensions: string[];
  /** Of what makes the key. */
  key?: string;
  digest?: string;
  /** Days from now on which it begins and ends to be valid. */
  days?: [from: number, to: number];
}

/** Writes them all. Chains lead to the issuer's trust anchor, but for those that are meant not to. */
export function writeTlsCertificates(directory: string, issuer: Issuer): void {
  const maker = new Maker(directory);
  const { anchor, files } = issuer.authority;
  maker.write('good', peerCertificate(issuer, API));
  maker.write('other-authority', peerCertificate(new Issuer(), API));
  maker.write('anchor', { cert: anchor.certificatePem, key: anchor.privateKeyPem });
  maker.write('issuer', { cert: files.certificatesPem, key: files.privateKeyPem });

  const leaf = [...LEAF, SIGNING, BOTH];
  maker.sign('expired', 'issuer', { extensions: leaf, days: [-2, -1] });
  maker.sign('not-yet-valid', 'issuer', { extensions: leaf, days: [1, 2] });
  maker.sign('server-only', 'issuer', { extensions: [...LEAF, SIGNING, 'extendedKeyUsage=serverAuth'] });
  maker.sign('no-signing', 'issuer', { extensions: [...LEAF, 'keyUsage=critical,keyEncipherment', BOTH] });
  maker.sign('critical-extension', 'issuer', { extensions: [...leaf, '1.2.3.4.5=critical,ASN1:UTF8String:unknown'] });
  maker.sign('weak-rsa', 'issuer', { extensions: leaf, key: 'genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024' });
  maker.sign('sha1', 'issuer', { extensions: leaf, digest: 'sha1' });
  maker.sign('issued-by-leaf', 'good', { extensions: leaf });
  maker.sign('short-path', 'anchor', { extensions: ['basicConstraints=critical,CA:TRUE,pathlen:0', CA[1]!] });
  maker.sign('below-short-path', 'short-path', { extensions: CA });
  maker.sign('path-too-long', 'below-short-path', { extensions: leaf });
  maker.sign('constrained', 'anchor', { extensions: [...CA, 'nameConstraints=critical,permitted;DNS:other.example'] });
  maker.sign('name-not-permitted', 'constrained', { extensions: leaf });
  maker.signByItself('self-signed', leaf);

  const good = { cert: maker.read('good.pem'), key: maker.read('good.key') };
  maker.write('without-intermediate', { ...good, cert: first(good.cert) });
  maker.write('wrong-signature', { ...good, cert: good.cert.replace(first(good.cert), withWrongSignature(good.cert)) });
}

class Maker {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  read(file: string): string {
    return readFileSync(path.join(this.#directory, file), 'utf8');
  }

  write(name: string, { cert, key }: { cert: string; key: string }): void {
    writeFileSync(path.join(this.#directory, `${name}.pem`), cert);
    writeFileSync(path.join(this.#directory, `${name}.key`), key, { mode: 0o600 });
  }

  /** Makes a key and a certificate below `issuer`, whose chain is put behind it. */
  sign(name: string, issuer: string, options: SignOptions): void {
    const { extensions, key, digest = 'sha256', days = [0, 1] } = options;
    this.#makeKey(name, key);
    this.#openssl(`req -new -key ${name}.key -out ${name}.csr -subj /CN=${name}`);
    // `openssl ca` is the one that takes dates in every version.
    const config = ['[ca]', 'default_ca=main', '[main]', 'database=index.txt', 'new_certs_dir=.', 'rand_serial=yes'];
    config.push('policy=any', 'unique_subject=no', 'x509_extensions=ext', '[any]', 'commonName=supplied', '[ext]');
    writeFileSync(path.join(this.#directory, 'index.txt'), '');
    writeFileSync(path.join(this.#directory, 'ca.cnf'), [...config, ...extensions, ''].join('\n'));
    const dates = `-startdate ${openSslDate(days[0])} -enddate ${openSslDate(days[1])}`;
    const signer = `-cert ${issuer}.pem -keyfile ${issuer}.key -md ${digest}`;
    this.#openssl(`ca -batch -notext -config ca.cnf ${signer} ${dates} -in ${name}.csr -out ${name}.pem`);
    if (issuer !== 'anchor') this.#append(name, issuer);
  }

  signByItself(name: string, extensions: string[]): void {
    this.#makeKey(name);
    const added = extensions.flatMap((extension) => ['-addext', extension]);
    this.#openssl(`req -x509 -new -key ${name}.key -days 1 -out ${name}.pem -subj /CN=${name}`, added);
  }

  #append(name: string, issuer: string): void {
    appendFileSync(path.join(this.#directory, `${name}.pem`), this.read(`${issuer}.pem`));
  }

  #makeKey(name: string, how = 'genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256'): void {
    this.#openssl(`${how} -out ${name}.key`);
  }

  #openssl(words: string, more: string[] = []): void {
    execFileSync('openssl', [...words.split(' '), ...more], {
      cwd: this.#directory,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: 20_000,
    });
  }
}

/** YYYYMMDDHHMMSSZ, so many days from now; a minute early, as clocks of a test are not all read at once. */
function openSslDate(days: number): string {
  const date = new Date(Date.now() + days * DAY_MS - 60_000);
  return `${date.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
}

function first(pem: string): string {
  return pem.slice(0, pem.indexOf('-----END CERTIFICATE-----') + '-----END CERTIFICATE-----\n'.length);
}

/** The signature is the last field of a certificate. */
function withWrongSignature(pem: string): string {
  const der = Buffer.from(first(pem).replace(/-----[^-]+-----|\s/g, ''), 'base64');
  der[der.length - 1]! ^= 1;
  const lines = der.toString('base64').replace(/.{64}/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}
