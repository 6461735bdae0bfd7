// An address with its port, as labels, logs and discovery write it.

/** `10.1.2.3:80`, `[fd00::1]:80`. */
export function formatAddress(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
