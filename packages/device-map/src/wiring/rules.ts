import { ConfigError } from '@q/config';
import type { Device } from '../types.js';

/**
 * Whose planner is followed: accelerate's own; the one inside transformers 5 that `from_pretrained` uses; or Q's, which
 * is that of transformers 5 with everything counted that Python misses.
 */
export type Wiring = 'accelerate' | 'transformers-5' | 'q';

/** Where the planners differ. Everything else is one planner. */
export interface Rules {
  readonly wiring: Wiring;
  /** Share of the host's detected memory that is planned with. */
  readonly hostShare: number;
  /** Which devices balancing counts. */
  readonly balances: (device: Device) => boolean;
  /** Which block of a no-split class counts: the first that is met, or the largest. */
  readonly block: 'first' | 'largest';
  /** What the mean layer of balancing is taken over: modules without modules inside, or all that own tensors. */
  readonly meanOver: 'innermost' | 'owners';
  /** Tied groups: parameters that are one tensor (`tied`), or `{ target: source }` (`tiedWeights`). */
  readonly ties: 'tied' | 'tiedWeights';
  /** A module that holds several tied parameters is counted for each of them, or once. */
  readonly countsTied: 'each' | 'once';
  /** Whether a module is split when it would fit but what is tied to it does not; else the device is left. */
  readonly splitsForTies: boolean;
  /** Whether a finished plan is checked for ties over several devices. */
  readonly checksTies: boolean;
  /** Python's `warnings` come after what is logged; transformers 5 logs the buffer warning first. */
  readonly buffersFirst: boolean;
  /**
   * Nothing is missed: a split module's own buffers are placed, chains of ties are followed, names are compared by
   * whole path components, and a plan that exceeds a budget is refused. False: as Python.
   */
  readonly strict: boolean;
}

const accelerate: Rules = {
  wiring: 'accelerate',
  hostShare: 1,
  balances: (device) => typeof device === 'number',
  block: 'first',
  meanOver: 'innermost',
  ties: 'tied',
  countsTied: 'each',
  splitsForTies: false,
  checksTies: false,
  buffersFirst: false,
  strict: false,
};

const transformers5: Rules = {
  wiring: 'transformers-5',
  hostShare: 0.9,
  balances: (device) => device !== 'cpu' && device !== 'disk',
  block: 'largest',
  meanOver: 'owners',
  ties: 'tiedWeights',
  countsTied: 'once',
  splitsForTies: true,
  checksTies: true,
  buffersFirst: true,
  strict: false,
};

const table: Readonly<Record<Wiring, Rules>> = {
  accelerate,
  'transformers-5': transformers5,
  q: { ...transformers5, wiring: 'q', strict: true },
};

/** @throws ConfigError for an unknown wiring */
export const rulesOf = (wiring: Wiring): Rules => {
  if (!Object.hasOwn(table, wiring))
    throw new ConfigError('rulesOf', 'unknown wiring', { wiring, fix: `use one of ${Object.keys(table).join(', ')}` });
  return table[wiring];
};
