// Layers, outermost first, over a service. Stacks are composed once per route or endpoint, never per request; null
// stands for a layer that has nothing to do there and is left out.

import type { HttpLayer, HttpService } from './http.ts';

export function compose(layers: readonly (HttpLayer | null)[], service: HttpService): HttpService {
  return layers.reduceRight((inner, layer) => (layer ? layer(inner) : inner), service);
}
