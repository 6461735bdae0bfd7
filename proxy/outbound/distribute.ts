// Chooses one of several backends for each request or connection: the first that is available, or at random by weight
// among those that are. A backend in fail-fast is not available; when none is, one is chosen all the same, so that the
// request fails with that backend's reason.

import { HeddleError } from '#lib/errors.ts';
import { failLater } from '../answer.ts';
import type { HttpService } from '../http.ts';

export interface Choice {
  readonly weight: number;
  isAvailable(): boolean;
}

/** Null where there is nothing to choose from. `random` returns numbers in [0, 1). */
export function choose<T extends Choice>(
  kind: 'first' | 'random',
  choices: readonly T[],
  random: () => number,
): T | null {
  if (kind === 'first') return choices.find((choice) => choice.isAvailable()) ?? choices[0] ?? null;
  let total = 0;
  for (const choice of choices) if (choice.isAvailable()) total += choice.weight;
  const isAny = total === 0;
  if (isAny) for (const choice of choices) total += choice.weight;
  let drawn = random() * total;
  for (const choice of choices) {
    if (!isAny && !choice.isAvailable()) continue;
    drawn -= choice.weight;
    if (drawn < 0) return choice;
  }
  return choices.at(-1) ?? null;
}

/** One service over several; with a single backend that backend itself. */
export function distribute(
  kind: 'first' | 'random',
  choices: readonly (Choice & { readonly service: HttpService })[],
  random: () => number,
): HttpService {
  if (choices.length === 1) return choices[0]!.service;
  return {
    call(request, exchange, response) {
      const choice = choose(kind, choices, random);
      if (choice) return choice.service.call(request, exchange, response);
      const message = 'choose backend: expected the route to have one';
      return failLater(response, new HeddleError('invalid-backend', message, { source: 'upstream' }));
    },
  };
}
