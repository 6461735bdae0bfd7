// Names of what an answer can depend on. The cluster says which of them a change touches; a topic says which of them its
// answer was made of.

export const tag = {
  service: (namespace: string, name: string) => `service:${namespace}/${name}`,
  /** The slices of a Service, and the pods they point to. */
  endpoints: (namespace: string, service: string) => `endpoints:${namespace}/${service}`,
  pod: (namespace: string, name: string) => `pod:${namespace}/${name}`,
  /** Who has an address: pods, host ports, Services. */
  ip: (ip: string) => `ip:${ip}`,
  /** Annotations of a namespace. */
  namespace: (name: string) => `namespace:${name}`,
  /** Servers and authorizations of a namespace. */
  policy: (namespace: string) => `policy:${namespace}`,
  /** Authentications, which policies of any namespace may refer to. */
  authentications: 'authentications',
  /** Which zone a node is in. */
  zones: 'zones',
} as const;
