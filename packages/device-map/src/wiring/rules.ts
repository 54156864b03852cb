import { ConfigError } from '@q/config';
import type { Device } from '../types.js';

/** Whose planner is followed: accelerate's own, or the copy inside transformers 5 that `from_pretrained` uses. */
export type Wiring = 'accelerate' | 'transformers-5';

/** Where the two planners differ. Everything else is one planner. */
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
}

const table: Readonly<Record<Wiring, Rules>> = {
  accelerate: {
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
  },
  'transformers-5': {
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
  },
};

/** @throws ConfigError for an unknown wiring */
export const rulesOf = (wiring: Wiring): Rules => {
  if (!Object.hasOwn(table, wiring)) throw new ConfigError('rulesOf', 'unknown wiring', { wiring, fix: `use one of ${Object.keys(table).join(', ')}` });
  return table[wiring];
};
