// The message of the gRPC tests, framed as on the wire: a flag, the length, the bytes (gRPC over HTTP/2,
// "Length-Prefixed-Message").

const MESSAGE_BYTES = 100;

export const GRPC_PATH = '/bench.Echo/Call';

/** One uncompressed message of 100 bytes with its prefix. */
export function framedMessage(): Buffer {
  const frame = Buffer.alloc(5 + MESSAGE_BYTES, 'm');
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(MESSAGE_BYTES, 1);
  return frame;
}
