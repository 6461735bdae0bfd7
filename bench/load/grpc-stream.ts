// Long gRPC streams, each with one message under way: the client sends, the origin echoes, and the next one follows when
// the echo is there in full. At the end the client closes its side and wants status 0.

import http2 from 'node:http2';
import { framedMessage, GRPC_PATH } from './grpc-message.ts';
import { nowMs } from './open-loop.ts';
import { type LoadResult, Recorder } from './result.ts';

export interface GrpcStreamOptions {
  host: string;
  port: number;
  seconds: number;
  connections: number;
  streamsPerConnection: number;
}

const DRAIN_MS = 5_000;
const MESSAGE = framedMessage();

/** Runs it; a request of the result is a message and its echo. */
export async function runGrpcStreams(options: GrpcStreamOptions): Promise<LoadResult> {
  const recorder = new Recorder();
  const sessions = await Promise.all(Array.from({ length: options.connections }, () => connect(options)));
  const startMs = nowMs();
  const endMs = startMs + options.seconds * 1000;
  const calls = sessions.flatMap((session) =>
    Array.from({ length: options.streamsPerConnection }, () =>
      call(session, endMs, recorder).catch((error: Error) => recorder.failed(error.message)),
    ),
  );
  await Promise.all(calls);
  const result = recorder.result(nowMs() - startMs);
  for (const session of sessions) session.destroy();
  return result;
}

async function connect({ host, port }: GrpcStreamOptions): Promise<http2.ClientHttp2Session> {
  const session = http2.connect(`http://${host}:${port}`);
  await new Promise<void>((resolve, reject) => session.once('connect', () => resolve()).once('error', reject));
  // Its streams say what failed.
  session.on('error', () => {});
  return session;
}

function call(session: http2.ClientHttp2Session, endMs: number, recorder: Recorder): Promise<void> {
  const stream = session.request({
    ':method': 'POST',
    ':path': GRPC_PATH,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let sentMs = nowMs();
  let received = 0;
  let grpcStatus: unknown = 'none';
  stream.write(MESSAGE);
  return new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the stream did not end')), endMs - nowMs() + DRAIN_MS);
    stream.on('response', (headers) => {
      if (headers[':status'] !== 200) reject(new Error(`HTTP status ${headers[':status']}`));
    });
    stream.on('data', (bytes: Buffer) => {
      if (MESSAGE.compare(bytes, 0, bytes.length, received, received + bytes.length) !== 0) {
        reject(new Error('another message than was sent'));
        return;
      }
      received += bytes.length;
      if (received < MESSAGE.length) return;
      received = 0;
      const atMs = nowMs();
      recorder.succeeded(atMs - sentMs);
      sentMs = atMs;
      if (atMs < endMs) stream.write(MESSAGE);
      else stream.end();
    });
    stream.on('trailers', (trailers) => {
      grpcStatus = trailers['grpc-status'];
    });
    stream.on('error', reject);
    stream.on('close', () => {
      clearTimeout(timer);
      if (grpcStatus === '0') resolve();
      else reject(new Error(`gRPC status ${grpcStatus}`));
    });
  });
}
