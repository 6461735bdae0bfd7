// The worker as it is, but for the one thing that tests without redirection lack: where connections were going. The
// listeners are on the wildcard address; a connection to 127.77.<hi>.<lo> was going to port <hi><lo> of the pod, one to
// 127.78.<n>.<m> to the m-th destination of DESTINATIONS. What arrives elsewhere is taken as it is.

import { main } from '#proxy/process.ts';

const destinations = JSON.parse(process.env.DESTINATIONS ?? '[]') as { address: string; port: number }[];
const podAddress = process.env.POD_ADDRESS ?? '127.0.0.2';

main(process.argv.slice(2), (name) => process.env[name], {
  originalDestination: (_name, { localAddress: address, localPort: port }) => {
    const [, net, high, low] = address.split('.').map(Number);
    if (net === 77) return { address: podAddress, port: high! * 256 + low! };
    if (net === 78) return destinations[low!] ?? null;
    return { address, port };
  },
});
