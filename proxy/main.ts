// A worker in node mode: the proxy of one pod. The agent gives birth to it inside the pod's network namespace, without
// privileges, with listeners and control socket as inherited descriptors (api/worker-link.ts); everything else comes
// over the control socket.

import { setDumpable, setNoNewPrivileges } from '#lib/libc.ts';
import { main } from './process.ts';

// Before anything is read that a neighbour could use: no privilege can be gained, nobody can look into this process.
setNoNewPrivileges();
setDumpable(false);
main(process.argv.slice(2), (name) => process.env[name]);
