// A gRPC origin without a schema: whatever message arrives goes back as it is, on unary calls and on streams alike, and
// the call ends with status 0 when the client has ended its side. HTTP/2 with prior knowledge.
//   node bench/pair/grpc-origin.ts PORT

import http2 from 'node:http2';

const server = http2.createServer({ settings: { maxConcurrentStreams: 1000 } });
server.on('stream', (stream: http2.ServerHttp2Stream) => {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  // A client that goes away resets its streams: that is its own failure to count.
  stream.on('error', () => {});
  stream.pipe(stream);
});
server.on('sessionError', (error) => console.error(`grpc origin: ${error.message}`));
server.listen(Number(process.argv[2]), '0.0.0.0', 4096);
