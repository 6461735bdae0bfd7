// A program that speaks to the mesh's proxies as one of them would, with node:tls and whatever certificate it is given:
// as a client that dials a pod's proxy, and as a server in the place of one, which sends back what it gets.

import tls from 'node:tls';
import { TRANSPORT_ALPN } from '#api/names.ts';
import { decodeTransportHeader, encodeTransportHeader } from '#proxy/wire/transport-header.ts';
import { answerCommands } from './channel.ts';

export interface RogueCertificate {
  certificatePem: string;
  privateKeyPem: string;
}

export type RogueCommand =
  | { op: 'dial'; dial: RogueDial }
  | { op: 'serve'; port: number }
  /** What the server shows from now on; what it has seen is forgotten. */
  | { op: 'show'; certificate: RogueCertificate }
  | { op: 'seen' };

export interface RogueDial {
  host: string;
  port: number;
  serverName: string;
  /** Null: none is shown. */
  certificate: RogueCertificate | null;
  /** The port of the application, and whether it is HTTP. */
  target: number;
  protocol: 'http' | 'tcp';
  payload: string;
}

export interface RogueAnswer {
  /** What came back; `''` when the connection ended first. */
  answer: string;
  /** How it ended when not in order. */
  error: string | null;
  /** The peer's certificate. */
  issuer: string;
  altNames: string;
}

export interface RogueSeen {
  handshakes: number;
  errors: string[];
  /** What clients sent inside TLS. */
  received: string;
}

const ANSWER_TIMEOUT_MS = 15_000;
const DONE = '\r\n\r\n';

const seen: RogueSeen = { handshakes: 0, errors: [], received: '' };
let server: tls.Server | null = null;

function request({ protocol, target, payload }: RogueDial): Buffer {
  const header = encodeTransportHeader({
    port: target,
    name: '',
    sessionProtocol: protocol === 'http' ? 'http1' : null,
  });
  const body = `POST /rogue HTTP/1.1\r\nhost: rogue\r\nconnection: close\r\ncontent-length: ${payload.length}${DONE}`;
  return Buffer.concat([header, Buffer.from(protocol === 'http' ? body + payload : payload)]);
}

function dial(options: RogueDial): Promise<RogueAnswer> {
  const { host, port, serverName, certificate, protocol, payload } = options;
  return new Promise((resolve) => {
    const result: RogueAnswer = { answer: '', error: null, issuer: '', altNames: '' };
    const socket = tls.connect({
      host,
      port,
      servername: serverName,
      minVersion: 'TLSv1.3',
      ALPNProtocols: [TRANSPORT_ALPN],
      // Whom it talks to is the test's business.
      rejectUnauthorized: false,
      ...(certificate ? { cert: certificate.certificatePem, key: certificate.privateKeyPem } : {}),
    });
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('no answer in time')));
    socket.on('secureConnect', () => {
      const { issuer, subjectaltname = '' } = socket.getPeerCertificate();
      result.issuer = String(issuer?.CN ?? '');
      result.altNames = subjectaltname;
      socket.write(request(options));
    });
    socket.on('data', (chunk: Buffer) => {
      result.answer += chunk.toString('latin1');
      if (protocol === 'tcp' && result.answer.length >= payload.length) socket.end();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      result.error = error.code ?? error.message;
    });
    socket.on('close', () => resolve(result));
  });
}

function serve(port: number): Promise<void> {
  server = tls.createServer({
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: [TRANSPORT_ALPN],
  });
  server.on('tlsClientError', (error: NodeJS.ErrnoException) => seen.errors.push(error.code ?? error.message));
  server.on('secureConnection', (socket) => {
    seen.handshakes++;
    let bytes = Buffer.alloc(0);
    socket.on('error', (error: NodeJS.ErrnoException) => seen.errors.push(error.code ?? error.message));
    socket.on('data', (chunk: Buffer) => {
      seen.received += chunk.toString('latin1');
      bytes = Buffer.concat([bytes, chunk]);
      const header = decodeTransportHeader(bytes);
      if (header.kind !== 'header') return;
      const payload = bytes.subarray(header.bytesUsed);
      bytes = bytes.subarray(0, header.bytesUsed);
      if (payload.length > 0) socket.write(payload);
    });
  });
  return new Promise((resolve, reject) => {
    server!.once('error', reject);
    server!.listen({ port, host: '::' }, resolve);
  });
}

function show({ certificatePem, privateKeyPem }: RogueCertificate): void {
  server!.setSecureContext({ cert: certificatePem, key: privateKeyPem, minVersion: 'TLSv1.3' });
  seen.handshakes = 0;
  seen.errors = [];
  seen.received = '';
}

answerCommands((command: RogueCommand) => {
  switch (command.op) {
    case 'dial':
      return dial(command.dial);
    case 'serve':
      return serve(command.port);
    case 'show':
      return show(command.certificate);
    case 'seen':
      return seen;
  }
});
